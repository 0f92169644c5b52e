"""A small action benchmark of real video files, in SSv2's own annotation format.

It stands in for the datasets that cannot be shipped: actors on a textured, drifting background
perform actions that only motion tells apart, beside competitors that perform others.
"""

from datasets_spec.synthetic.benchmark import make

__all__ = ["make"]
