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


@pytest.fixture(scope="session")
def tiny_backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a VideoMAE of 16 px, 4 frames, 8 tokens, 3 blocks and 5 classes."""
    from tests.checkpoints import save_videomae  # late: most tests need no torch

    return save_videomae(tmp_path_factory.mktemp("tiny-backbone"))
