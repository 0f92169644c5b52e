"""What the fault tests share: a small dataset, and what comes of it undisturbed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.builds import file_hashes, make_dataset, run_build
from tests.evaluations import run_evaluation

NUM_VIDEOS = 10  # shards of 4, 4 and 2
MISSING = (5,)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten videos, one of them missing."""
    return make_dataset(tmp_path_factory.mktemp("data"), NUM_VIDEOS, missing=MISSING)


@pytest.fixture(scope="session")
def undisturbed(
    tmp_path_factory: pytest.TempPathFactory, data: Path, tiny_backbone: Path
) -> dict[str, str]:
    """File hashes of a serial build in which nothing went wrong."""
    store = tmp_path_factory.mktemp("undisturbed") / "store"
    assert run_build(store, data, tiny_backbone).complete
    return file_hashes(store)


@pytest.fixture(scope="session")
def undisturbed_evaluation(
    tmp_path_factory: pytest.TempPathFactory, data: Path, tiny_backbone: Path
) -> Path:
    """A serial evaluation in which nothing went wrong."""
    out = tmp_path_factory.mktemp("undisturbed") / "evaluation"
    assert run_evaluation(out, data, tiny_backbone).given_up == []
    return out
