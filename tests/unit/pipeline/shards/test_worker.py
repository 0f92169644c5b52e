"""What a clip costs that the model raises on, what memory costs, and what is no matter of clips."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pipeline.config import RunConfig
from pipeline.errors import LiteError
from pipeline.shards import worker as module
from pipeline.shards.executor import Attempt
from pipeline.shards.loader import Batch
from pipeline.shards.worker import ShardJob, ShardWorker, is_broken_cuda, is_out_of_memory
from pipeline.store.root import Root
from tests.stores import make_config

BACKBONE = SimpleNamespace(
    num_frames=2,
    image_size=1,
    short_side=1,
    tubelet_size=1,
    device=torch.device("cpu"),
)


@dataclass(kw_only=True)
class Job(ShardJob):
    failed: dict = field(default_factory=dict)

    def fail(self, position, error):
        self.failed[position] = (error.status, str(error))

    def counts(self):
        return {"ok": len(self.todo) - len(self.failed), "model_error": len(self.failed)}


class FakeWorker(ShardWorker[Job]):
    """Four clips, in batches of three slots and one; `step` is the model."""

    def __init__(self, root, step, **run):
        run_config = RunConfig(data_root="x", decode_workers=0, **run)
        super().__init__(make_config(), run_config, root, BACKBONE)
        self.step, self.steps, self.committed = step, [], []
        self._loader = self

    def batches(self, plan, wanted, guard, on_failure):
        for start, stop in ((0, 3), (3, 4)):
            clips = np.arange(start, stop, dtype=np.uint8)[:, None, None, None, None] + 1
            yield Batch(start, clips, {position: {} for position in range(start, stop)})

    def close(self):
        pass

    def begin(self, shard):
        return Job(shard=shard, plan={"clip_id": [0, 1, 2, 3]}, todo=range(4))

    def compute(self, job, batch):
        shown = batch.clips[:, 0, 0, 0, 0].tolist()
        assert [p + 1 if p in batch.facts else 0 for p in batch.positions] == shown
        self.step(batch)
        self.steps.append(shown)

    def commit(self, job):
        self.committed.append(job)


@pytest.fixture
def root(tmp_path):
    return Root(tmp_path)


def raising(error, *positions):
    def step(batch):
        if set(positions) & set(batch.facts):
            raise error

    return step


def run(root, step, **options):
    worker = FakeWorker(root, step, **options)
    report = worker.run(0, Attempt())
    return worker.steps, worker.committed[0].failed, report


def test_a_batch_that_works_is_one_step(root):
    steps, failed, report = run(root, raising(ValueError()))
    assert steps == [[1, 2, 3], [4]]
    assert failed == {}
    assert report.counts == {"ok": 4, "model_error": 0}
    assert report.seconds["compute"] > 0


def test_a_clip_that_raises_fails_alone_and_its_neighbours_keep_the_batchs_shape(root):
    steps, failed, _ = run(root, raising(ValueError("odd input"), 1))
    assert steps == [[1, 0, 0], [0, 0, 3], [4]]
    assert failed == {1: ("model_error", "ValueError: odd input")}


@pytest.mark.parametrize("error", [LiteError("too large"), RuntimeError("CUDA error: assert")])
def test_our_own_errors_and_a_broken_cuda_blame_no_clip(root, error):
    with pytest.raises(type(error), match=str(error)):
        run(root, raising(error, 3))


def test_an_actor_with_a_broken_cuda_ends(root, monkeypatch):
    def leave(code):
        raise SystemExit(code)

    monkeypatch.setattr(module.os, "_exit", leave)
    with pytest.raises(SystemExit, match="70"):
        run(root, raising(RuntimeError("CUDA error: assert"), 3), workers=1)


OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
    # What the driver and the libraries say when they allocate past torch's own pool.
    RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: str(error)[:40])
def test_a_batch_that_does_not_fit_is_halved_and_blames_no_clip(root, error, caplog):
    def step(batch):
        if len(batch.clips) > 1:
            raise error

    steps, failed, _ = run(root, step)
    assert steps == [[1], [2], [3], [4]]
    assert failed == {}
    assert "out of memory with 3 clips; going on with 1" in caplog.text
    assert "last bits" in caplog.text


def test_what_fits_is_remembered(root):
    tried = []

    def step(batch):
        tried.append(len(batch.clips))
        if len(batch.clips) > 2:
            raise torch.OutOfMemoryError

    worker = FakeWorker(root, step)
    worker._most_clips = 2
    worker.run(0, Attempt())
    assert tried == [2, 1, 1]


def test_one_clip_that_does_not_fit_is_an_error_with_advice(root):
    with pytest.raises(LiteError, match="one clip does not fit.*--precision bf16"):
        run(root, raising(torch.OutOfMemoryError(), 3))


def test_broken_cuda_is_told_from_other_errors():
    assert is_broken_cuda(RuntimeError("CUDA error: device-side assert triggered"))
    assert not is_broken_cuda(RuntimeError("shape mismatch"))
    assert not is_out_of_memory(RuntimeError("CUDA error: device-side assert triggered"))
    for error in OUT_OF_MEMORY:
        assert is_out_of_memory(error)
        assert not is_broken_cuda(error)
