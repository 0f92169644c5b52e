"""Benchmarks run as they are documented: by `python benchmarks/NAME.py`, from anywhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"
WITH_TESTS = [
    path.name
    for path in sorted(BENCHMARKS.glob("*.py"))
    if re.search(r"^from tests\.", path.read_text(), re.M)
]


@pytest.mark.parametrize("name", WITH_TESTS)
def test_a_benchmark_that_shares_with_the_tests_finds_them(tmp_path, name):
    """The folder `tests` is no part of what is installed."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, BENCHMARKS / name, "--help"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "usage:" in done.stdout
