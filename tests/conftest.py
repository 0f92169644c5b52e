"""Fixtures every test may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_BESIDE_THE_CHECKOUT = Path(__file__).resolve().parents[2] / "shared" / "clips"


@pytest.fixture(scope="session")
def clips_dir() -> Path:
    """The folder of real clips; set LITE_CLIPS to use another. Skips loudly without one."""
    folder = Path(os.environ.get("LITE_CLIPS", _BESIDE_THE_CHECKOUT))
    if not folder.is_dir():
        pytest.skip(f"NO REAL CLIPS at {folder}: set LITE_CLIPS to a folder that has them")
    return folder
