"""Fixtures every test may use."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pipeline.store.reader import Store

_BESIDE_THE_CHECKOUT = Path(__file__).resolve().parents[2] / "shared"


if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts what it puts into the background so, and every child would inherit it: those
    # that are to end by Ctrl-C never would.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def clips_dir() -> Path:
    """The folder of real clips; set LITE_CLIPS to use another. Skips loudly without one."""
    folder = Path(os.environ.get("LITE_CLIPS", _BESIDE_THE_CHECKOUT / "clips"))
    if not folder.is_dir():
        pytest.skip(f"NO REAL CLIPS at {folder}: set LITE_CLIPS to a folder that has them")
    return folder


@pytest.fixture(scope="session")
def peers_dir() -> Path:
    """Numbers that other methods' own code gave; set LITE_PEERS to use another folder."""
    folder = Path(os.environ.get("LITE_PEERS", _BESIDE_THE_CHECKOUT / "peers"))
    if not folder.is_dir():
        pytest.skip(f"NO REFERENCE NUMBERS at {folder}: set LITE_PEERS to a folder that has them")
    return folder


@pytest.fixture(scope="session")
def tiny_backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a VideoMAE of 16 px, 4 frames, 8 tokens, 3 blocks and 5 classes."""
    from tests.checkpoints import save_videomae  # late: most tests need no torch

    return save_videomae(tmp_path_factory.mktemp("tiny-backbone"))


@pytest.fixture
def tiny_store(tmp_path: Path) -> Store:
    """Ten clips in three shards, one of them failed and one degenerate; see `tests.stores`."""
    from pipeline.errors import ClipStatus
    from tests.stores import make_store  # late: most tests need no store

    return make_store(
        tmp_path / "tiny_store", 10, failed={3: ClipStatus.DECODE_ERROR}, degenerate=(5,)
    )
