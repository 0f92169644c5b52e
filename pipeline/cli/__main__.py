"""`python -m pipeline.cli` is `lite-pipeline`."""

from pipeline.cli import main

main()
