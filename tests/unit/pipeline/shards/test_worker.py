"""What a clip costs that the model raises on, what memory costs, and what is no matter of clips."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pipeline.config import RunConfig
from pipeline.errors import (
    ClipStatus,
    DecodeError,
    LiteError,
    ModelFailsError,
    NoReadableVideoError,
    UnfitWorkerError,
)
from pipeline.shards import worker as module
from pipeline.shards.executor import Attempt, Isolation
from pipeline.shards.loader import Batch
from pipeline.shards.worker import (
    ShardJob,
    ShardWorker,
    is_broken_cuda,
    is_out_of_memory,
    numerics,
)
from tests.stores import make_config

BACKBONE = SimpleNamespace(
    num_frames=2,
    image_size=1,
    clip_format={"num_frames": 2, "size": 1, "short_side": 1, "min_frames": 1},
    device=torch.device("cpu"),
)


@dataclass(kw_only=True)
class Job(ShardJob):
    failed: dict = field(default_factory=dict)
    nan: set = field(default_factory=set)

    def fail(self, position, error):
        self.failed[position] = (error.status, str(error))

    def counts(self):
        return {"ok": self.num_worked(), "model_error": 4 - self.num_worked()}

    def num_worked(self):
        return len(set(range(4)) - set(self.failed) - self.nan)


class FakeWorker(ShardWorker[Job]):
    """Four clips with ids 10 .. 13, in batches of three slots and one; `step` is the model."""

    def __init__(self, step, undecodable=None, **run):
        run_config = RunConfig(data_root="/data", decode_workers=0, **run)
        super().__init__(make_config(), run_config, BACKBONE)
        self.step, self.steps, self.committed, self.finished = step, [], [], []
        self.undecodable, self.known_check = undecodable or {}, lambda: None
        self.is_retry = False
        self._loader = self

    def batches(self, plan, wanted, on_failure, *, isolated):
        self.asked = plan, isolated
        for start, stop in ((0, 3), (3, 4)):
            clips = np.zeros((stop - start, 1, 1, 1, 1), np.uint8)
            batch = Batch(start, clips)
            for position in sorted(set(wanted) & set(range(start, stop))):
                if status := self.undecodable.get(position):
                    on_failure(position, DecodeError(status, "no such file"))
                else:
                    clips[position - start] = position + 1
                    batch.facts[position] = {}
            if batch.facts:
                yield batch

    def check_known_videos(self):
        self.known_check()

    def close(self):
        pass

    def begin(self, shard):
        names = [f"v{clip}.mp4" for clip in range(4)]
        plan = {"clip_id": [10, 11, 12, 13], "video_id": names, "path": names}
        return Job(shard=shard, plan=plan, todo=range(4), is_retry=self.is_retry)

    def compute(self, job, batch):
        shown = batch.clips[:, 0, 0, 0, 0].tolist()
        assert [p + 1 if p in batch.facts else 0 for p in batch.positions] == shown
        if self.step(batch) == "nan":
            job.nan.update(batch.facts)
        self.steps.append(shown)

    def finish(self, job):
        self.finished.append(job)

    def commit(self, job):
        self.committed.append(job)


def raising(error, *positions):
    def step(batch):
        if set(positions) & set(batch.facts):
            raise error

    return step


def run(step, **options):
    worker = FakeWorker(step, **options)
    report = worker.run(0, Attempt())
    return worker.steps, worker.committed[0].failed, report


def test_a_job_goes_from_its_plan_to_its_report():
    worker = FakeWorker(raising(ValueError()))
    report = worker.run(7, Attempt())
    [job] = worker.committed
    assert (job.shard, report.shard) == (7, 7)
    assert worker.finished == [job]
    assert worker.asked == (job.plan, False)
    worker.run(7, Attempt(isolation=Isolation()))
    assert worker.asked[1] is True


def test_a_batch_that_works_is_one_step():
    steps, failed, report = run(raising(ValueError()))
    assert steps == [[1, 2, 3], [4]]
    assert failed == {}
    assert report.counts == {"ok": 4, "model_error": 0}
    assert report.seconds["compute"] > 0


def test_the_seconds_are_those_of_each_phase(monkeypatch):
    clock = itertools.count(0, 10)  # every look at it is 10 s later
    monkeypatch.setattr(module.time, "perf_counter", lambda: next(clock))
    # Two batches and the end are waited for, two batches are computed, one shard is written.
    assert run(raising(ValueError()))[2].seconds == {"decode": 30, "compute": 20, "write": 10}


def test_a_clip_that_raises_fails_alone_and_its_neighbours_keep_the_batchs_shape():
    steps, failed, _ = run(raising(ValueError("odd input"), 1))
    assert steps == [[1, 0, 0], [0, 0, 3], [4]]
    assert failed == {1: ("model_error", "ValueError: odd input")}


@pytest.mark.parametrize("error", [LiteError("too large"), RuntimeError("CUDA error: assert")])
def test_our_own_errors_and_a_broken_cuda_blame_no_clip(error):
    with pytest.raises(type(error), match=str(error)):
        run(raising(error, 3))


def test_an_actor_with_a_broken_cuda_ends(monkeypatch):
    def leave(code):
        raise SystemExit(code)

    monkeypatch.setattr(module.os, "_exit", leave)
    with pytest.raises(SystemExit, match="70"):
        run(raising(RuntimeError("CUDA error: assert"), 3), workers=1)


# What says more about the run than about clips

MISSING = dict.fromkeys(range(4), ClipStatus.MISSING_FILE)


def test_a_shard_without_one_readable_video_commits_nothing():
    worker = FakeWorker(raising(ValueError()), MISSING)
    with pytest.raises(
        NoReadableVideoError,
        match=r"4 videos of shard 5 .*v0.mp4 \(no such file\).*/data.*--accept-missing",
    ):
        worker.run(5, Attempt())
    assert worker.committed == []


def test_it_does_when_it_is_told_to():
    for worker, attempt in [
        (FakeWorker(raising(ValueError()), MISSING), Attempt(final=True)),
        (FakeWorker(raising(ValueError()), MISSING, accept_missing=True), Attempt()),
    ]:
        assert worker.run(0, attempt).num_worked == 0
        assert len(worker.committed) == 1


def test_a_retry_of_what_failed_before_is_no_news():
    worker = FakeWorker(raising(ValueError()), MISSING)
    worker.is_retry = True
    worker.run(0, Attempt())
    assert len(worker.committed) == 1


def test_one_readable_video_is_enough():
    undecodable = dict.fromkeys(range(3), ClipStatus.UNREADABLE)
    report = FakeWorker(raising(ValueError()), undecodable).run(0, Attempt())
    assert report.counts == {"ok": 1, "model_error": 3}


def test_a_worker_that_has_lost_what_the_run_could_read_says_so_instead():
    def lost():
        raise UnfitWorkerError("v9.mp4 is gone")

    # Even if one video of the shard was read before that.
    for undecodable in (MISSING, {2: ClipStatus.UNREADABLE}):
        worker = FakeWorker(raising(ValueError()), undecodable)
        worker.known_check = lost
        with pytest.raises(UnfitWorkerError, match="v9.mp4"):
            worker.run(0, Attempt())
        assert worker.committed == []


@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_model_that_works_on_no_clip_commits_nothing_whatever_the_batch_size(batch_size):
    worker = FakeWorker(raising(ValueError("a bug"), 0, 1, 2, 3))
    worker._most_clips = batch_size
    with pytest.raises(ModelFailsError, match="fails on all 4 clips.*ValueError: a bug"):
        worker.run(0, Attempt())
    assert worker.committed == []


def test_a_model_that_returns_no_number_has_not_worked():
    worker = FakeWorker(lambda batch: "nan")
    with pytest.raises(ModelFailsError, match="not finite"):
        worker.run(0, Attempt())


def test_videos_that_cannot_be_read_do_not_hide_a_model_that_fails():
    worker = FakeWorker(raising(ValueError("a bug"), 3), dict(list(MISSING.items())[:3]))
    with pytest.raises(ModelFailsError, match=r"fails on all 1 clips .*ValueError: a bug"):
        worker.run(0, Attempt())


def test_a_model_that_has_worked_before_is_doubted_too():
    """Its device may have broken since; whether it still works is seen elsewhere."""
    worker = FakeWorker(raising(ValueError("odd input"), 3))
    assert worker.run(0, Attempt()).num_worked == 3
    worker.step = raising(ValueError("odd input"), 0, 1, 2, 3)
    with pytest.raises(ModelFailsError, match="all 4 clips of shard 1"):
        worker.run(1, Attempt())
    assert worker.run(1, Attempt(final=True)).counts == {"ok": 0, "model_error": 4}
    assert [job.shard for job in worker.committed] == [0, 1]


def test_a_last_batch_of_bad_clips_is_rows():
    assert run(raising(ValueError(), 3))[2].counts == {"ok": 3, "model_error": 1}


def test_a_dry_run_tells_and_commits_nothing():
    worker = FakeWorker(raising(ValueError(), 3))
    assert worker.run(0, Attempt(dry_run=True)).num_worked == 3
    assert worker.committed == []


# In a process of its own


def test_suspects_come_one_at_a_time_and_whoever_watches_is_told():
    told = []
    worker = FakeWorker(lambda batch: told.append("step"))
    worker.run(0, Attempt(isolation=Isolation({11, 12}, (), told.append)))
    assert worker.steps == [[1, 0, 0], [0, 2, 0], [0, 0, 3], [4]]
    assert told == [
        [10], "step", [], [11], "step", [], [12], "step", [], [13], "step", [],
    ]  # fmt: skip


def test_clips_that_crash_are_left_out_and_fail():
    worker = FakeWorker(raising(ValueError()))
    worker.run(0, Attempt(isolation=Isolation((), {11, 13})))
    assert worker.steps == [[1, 0, 3]]
    [job] = worker.committed
    assert {p: status for p, (status, _) in job.failed.items()} == dict.fromkeys(
        (1, 3), "worker_died"
    )


def test_a_shard_of_nothing_but_crashes_is_no_doubt_about_the_model():
    worker = FakeWorker(raising(ValueError()))
    worker.run(0, Attempt(isolation=Isolation((), {10, 11, 12, 13})))
    assert len(worker.committed) == 1


# Memory


OUT_OF_MEMORY = {
    "torch": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
    # What the driver and the libraries say when they allocate past torch's own pool.
    "driver": RuntimeError(
        "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"
    ),
    "cublas": RuntimeError(
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"
    ),
    "cudnn": RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    "cpu": RuntimeError(
        "DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."
    ),
    "python": MemoryError("Unable to allocate 9 GiB for an array"),
}


@pytest.mark.parametrize("error", OUT_OF_MEMORY.values(), ids=OUT_OF_MEMORY)
def test_a_batch_that_does_not_fit_is_halved_and_blames_no_clip(error, caplog):
    def step(batch):
        if len(batch.clips) > 1:
            raise error

    steps, failed, report = run(step)
    assert steps == [[1], [2], [3], [4]]
    assert failed == {}
    assert report.batch_size == 1
    assert "out of memory with 3 clips; going on with 1" in caplog.text
    assert "last bits" in caplog.text


def test_memory_that_is_short_halves_a_batch(caplog):
    def step(batch):
        if len(batch.clips) > 4:
            raise torch.OutOfMemoryError

    worker = FakeWorker(step)
    batch = Batch(0, np.arange(9, dtype=np.uint8).reshape(9, 1, 1, 1, 1))
    batch.facts.update((position, {}) for position in range(9))
    sizes = []
    worker.compute = lambda job, part: (step(part), sizes.append(len(part.clips)))
    worker._compute_all(worker.begin(0), batch)
    assert sizes == [4, 4, 1]
    assert "cpu is out of memory with 9 clips; going on with 4, which" in caplog.text


def test_what_fits_is_remembered():
    tried = []

    def step(batch):
        tried.append(len(batch.clips))
        if len(batch.clips) > 2:
            raise torch.OutOfMemoryError

    worker = FakeWorker(step)
    worker._most_clips = 2
    worker.run(0, Attempt())
    assert tried == [2, 1, 1]


def test_one_clip_that_does_not_fit_is_an_error_with_advice():
    with pytest.raises(LiteError, match="one clip does not fit.*--precision bf16"):
        run(raising(torch.OutOfMemoryError(), 3))


def test_broken_cuda_is_told_from_other_errors():
    assert is_broken_cuda(RuntimeError("CUDA error: device-side assert triggered"))
    assert not is_broken_cuda(RuntimeError("shape mismatch"))
    if hasattr(torch, "AcceleratorError"):
        assert is_broken_cuda(torch.AcceleratorError("device lost"))
    assert not is_out_of_memory(RuntimeError("CUDA error: device-side assert triggered"))
    for error in OUT_OF_MEMORY.values():
        assert is_out_of_memory(error)
        assert not is_broken_cuda(error)


# What is said of the numbers


def test_what_may_change_the_last_bits_is_recorded(monkeypatch):
    run_config = RunConfig(data_root="/data", threads_per_worker=3, batch_size=5)
    facts = {"torch": torch.__version__, "batch_size": 5}
    assert numerics(torch.device("cpu"), run_config) == facts | {"device": "cpu", "threads": 3}
    card = SimpleNamespace(name="Card", major=9, minor=1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", {torch.device("cuda", 1): card}.get)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 91)
    assert numerics(torch.device("cuda", 1), run_config) == facts | {
        "device": "Card, capability 9.1",
        "cuda": "13.0",
        "cudnn": 91,
    }
    assert FakeWorker(raising(ValueError())).facts["device"] == "cpu"
