"""A dataset that is not there, a model that does not work, a disk that is full: no matter of clips.

The right end is an error that says so, with nothing recorded that would have to be mended later.
"""

from __future__ import annotations

import functools
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import (
    ClipStatus,
    DecodeError,
    DiskFullError,
    ModelFailsError,
    NoReadableVideoError,
    UnfitWorkerError,
)
from pipeline.oracle.worker import OracleWorker
from pipeline.store.reader import open_store
from tests.builds import file_hashes, make_dataset, run_build
from tests.evaluations import run_evaluation
from tests.faults.chaos import Order, chaos, count

NUM_VIDEOS = 24  # 6 shards of 4


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """A dataset that a test may take apart."""
    return make_dataset(tmp_path / "data", NUM_VIDEOS)


@pytest.fixture
def undisturbed(tmp_path: Path, tiny_backbone: Path) -> dict[str, str]:
    data = make_dataset(tmp_path / "other", NUM_VIDEOS)
    run_build(tmp_path / "undisturbed", data, tiny_backbone)
    return file_hashes(tmp_path / "undisturbed")


def test_all_videos_but_one_are_missing(tmp_path, tiny_backbone, whole, undisturbed):
    shutil.move(whole, tmp_path / "moved")
    data = make_dataset(tmp_path / "data", NUM_VIDEOS, missing=tuple(range(1, NUM_VIDEOS)))
    store = tmp_path / "store"
    with pytest.raises(NoReadableVideoError, match=r"4 videos of shard 3.*3 whole shards"):
        run_build(store, data, tiny_backbone)
    assert open_store(store).summary() == {"ok": 1, "missing_file": 3, "pending": 20}
    result = run_build(store, data, tiny_backbone, run={"accept_missing": True})
    assert result.summary == {"ok": 1, "missing_file": 23, "pending": 0}
    shutil.rmtree(data)
    shutil.move(tmp_path / "moved", data)
    result = run_build(store, data, tiny_backbone, retry=("missing_file",))
    assert result.summary == {"ok": 24, "pending": 0}
    assert file_hashes(store) == undisturbed


def test_all_videos_are_missing_in_a_dataset_of_two_shards(tmp_path, tiny_backbone):
    data = make_dataset(tmp_path / "data", 8, missing=tuple(range(8)))
    with pytest.raises(NoReadableVideoError, match="--accept-missing"):
        run_build(tmp_path / "store", data, tiny_backbone)
    assert open_store(tmp_path / "store").shards() == []
    with pytest.raises(NoReadableVideoError, match="--accept-missing"):
        run_evaluation(tmp_path / "evaluation", data, tiny_backbone)


@pytest.mark.parametrize("at", ["begin", "_compute_part"])
def test_a_dataset_that_goes_in_the_middle_of_a_run_and_comes_back(
    tmp_path, tiny_backbone, whole, undisturbed, at
):
    """Before a shard, or within it, when its first batch is already there."""
    store = tmp_path / "store"
    with pytest.raises(UnfitWorkerError, match=r"which this run could read.*mounted"):
        run_build(
            store,
            whole,
            tiny_backbone,
            worker_class=functools.partial(UnmountingWorker, at, 2, str(tmp_path / "away")),
        )
    assert open_store(store).summary() == {"ok": 8, "pending": 16}
    shutil.move(tmp_path / "away", whole)
    assert run_build(store, whole, tiny_backbone).complete
    assert file_hashes(store) == undisturbed


class UnmountingWorker(OracleWorker):
    """Moves the dataset away at a step of a certain shard."""

    def __init__(self, step: str, at: int, away: str, *args: Any) -> None:
        super().__init__(*args)
        self._step, self._at, self._away = step, at, away

    def begin(self, shard: int) -> Any:
        self._move("begin", shard)
        return super().begin(shard)

    def _compute_part(self, job: Any, batch: Any) -> None:
        super()._compute_part(job, batch)
        self._move("_compute_part", job.shard)

    def _move(self, step: str, shard: int) -> None:
        if (step, shard) == (self._step, self._at) and not Path(self._away).exists():
            shutil.move(self._run_config.data_root, self._away)


def test_one_whole_shard_of_missing_videos_is_rows(tmp_path, tiny_backbone):
    data = make_dataset(tmp_path / "data", NUM_VIDEOS, missing=(8, 9, 10, 11))
    result = run_build(tmp_path / "store", data, tiny_backbone)
    assert result.summary == {"ok": 20, "missing_file": 4, "pending": 0}


def test_the_last_shard_of_a_store_may_be_missing(tmp_path, tiny_backbone):
    """Nothing works in the run that does it; what an earlier one did shows that it could."""
    data = make_dataset(tmp_path / "data", NUM_VIDEOS, missing=tuple(range(20, 24)))
    store = tmp_path / "store"
    run_build(store, data, tiny_backbone)
    before = file_hashes(store)
    for name in ("clips", "tokens"):
        (store / name / "shard-00005.parquet").unlink()
    assert run_build(store, data, tiny_backbone).complete
    assert file_hashes(store) == before


class BlindWorker(OracleWorker):
    """The first two of them run where no video can be read, as on a node that lost its mount."""

    def __init__(self, folder: str, *args: Any) -> None:
        made = Path(folder)
        made.mkdir(exist_ok=True)
        number = len(list(made.iterdir()))
        (made / str(number)).touch()
        super().__init__(*args)
        if number < 2:
            self._loader._run_config = _elsewhere(self._loader._run_config)


def _elsewhere(run_config: Any) -> Any:
    from dataclasses import replace

    known = tuple(f"/nowhere/{Path(path).name}" for path in run_config.known_videos)
    return replace(run_config, data_root="/nowhere", known_videos=known)


@pytest.mark.ray
def test_a_node_that_lost_its_mount_eats_no_shard(tmp_path, tiny_backbone, whole, undisturbed):
    worker = functools.partial(BlindWorker, str(tmp_path / "made"))
    result = run_build(
        tmp_path / "store", whole, tiny_backbone, run={"workers": 2}, worker_class=worker
    )
    assert result.complete
    assert file_hashes(tmp_path / "store") == undisturbed
    assert len(list((tmp_path / "made").iterdir())) >= 3


class FailingModel(OracleWorker):
    """A model that raises on some clips, or on all."""

    def __init__(self, bad: Callable[[int], bool], *args: Any) -> None:
        super().__init__(*args)
        self._bad = bad

    def compute(self, job: Any, batch: Any) -> None:
        if any(self._bad(job.plan["clip_id"][position]) for position in batch.facts):
            raise ValueError("odd input")
        super().compute(job, batch)


def _all(clip: int) -> bool:
    return True


def _some(clip: int) -> bool:
    return clip in (2, 3, 4, 5, 6, 7, 22, 23)  # a last batch, a whole shard, the very last


@pytest.mark.parametrize("batch_size", [1, 2, 4])
def test_a_model_that_works_on_no_clip_records_nothing(tmp_path, tiny_backbone, whole, batch_size):
    with pytest.raises(ModelFailsError, match="odd input"):
        run_build(
            tmp_path / "store",
            whole,
            tiny_backbone,
            run={"batch_size": batch_size},
            worker_class=functools.partial(FailingModel, _all),
        )
    assert open_store(tmp_path / "store").shards() == []


@pytest.mark.parametrize("batch_size", [1, 2, 4])
def test_bad_clips_are_rows_whatever_the_batch_size(tmp_path, tiny_backbone, whole, batch_size):
    result = run_build(
        tmp_path / "store",
        whole,
        tiny_backbone,
        run={"batch_size": batch_size},
        worker_class=functools.partial(FailingModel, _some),
    )
    assert result.given_up == []
    clips = open_store(tmp_path / "store").clips()
    assert Counter(clips["status"]) == {"ok": 16, "model_error": 8}
    assert [c for c in clips["clip_id"] if _some(c)] == clips.query("status == 'model_error'")[
        "clip_id"
    ].tolist()


class BusyMachine(OracleWorker):
    """Decoding of some clips takes too long, unless little else is to be done."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        batches = self._loader.batches

        def slow(plan: Any, wanted: Any, on_failure: Any, **options: Any) -> Any:
            late = [p for p in wanted if plan["clip_id"][p] in (2, 9)] if len(wanted) > 1 else []
            for position in late:
                error = DecodeError(ClipStatus.DECODE_TIMEOUT, "not decoded within 60 s")
                on_failure(position, error)
            return batches(plan, [p for p in wanted if p not in late], on_failure, **options)

        self._loader.batches = slow  # type: ignore[method-assign]


def test_clips_that_a_busy_machine_did_not_decode_in_time_are_no_failures(
    tmp_path, tiny_backbone, whole, undisturbed
):
    store = tmp_path / "store"
    result = run_build(store, whole, tiny_backbone, worker_class=BusyMachine)
    assert result.summary == {"ok": 24, "pending": 0}
    assert file_hashes(store) == undisturbed


@pytest.mark.parametrize("at", ["rename:cam/c.2", "rename:clips/shard-00002"])
def test_a_full_disk_ends_the_run_at_once_and_keeps_what_is_committed(
    tmp_path, tiny_backbone, whole, undisturbed, at
):
    store, folder = tmp_path / "store", tmp_path / "chaos"
    order = Order(at, shard=2, act="full")
    with pytest.raises(DiskFullError, match=r"cannot be written: No space left.*make room"):
        run_build(store, whole, tiny_backbone, worker_class=chaos(folder, order))
    assert count(folder) == 1
    assert open_store(store).shards() == [0, 1]
    assert run_build(store, whole, tiny_backbone).complete
    assert file_hashes(store) == undisturbed
