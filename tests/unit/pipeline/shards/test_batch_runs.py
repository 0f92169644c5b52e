"""What a clip costs that the model raises on, and what is no matter of clips."""

import numpy as np
import pytest

from pipeline.errors import LiteError
from pipeline.shards import batch_runs as steps
from pipeline.shards.batch_runs import run_steps
from pipeline.shards.batches import Batch
from pipeline.shards.poison import Isolation
from pipeline.store.root import Root


@pytest.fixture
def run(tmp_path):
    """Runs a step on a batch of three clips; returns (outputs, failures by position)."""

    def run(step, positions=(4, 5, 6), in_actor=False):
        clips = np.ones((3, 2, 1, 1, 3), np.uint8)
        batch = Batch(4, clips, {position: {} for position in (4, 5, 6)}).only(positions)
        failed = {}
        isolation = Isolation(Root(str(tmp_path)))
        with isolation.guarding(0, range(10), cautious=False) as guard:
            outputs = run_steps(batch, step, guard, failed.__setitem__, in_actor=in_actor)
        return outputs, failed

    return run


def raising(error, *positions):
    """Gives the positions it saw, and the pixels' sum; raises if one of `positions` is there."""

    def step(batch):
        if set(positions) & set(batch.facts):
            raise error
        return sorted(batch.facts), len(batch.clips)

    return step


def test_a_batch_that_works_is_one_step(run):
    assert run(raising(ValueError())) == ([([4, 5, 6], 3)], {})


def test_a_clip_that_raises_fails_alone_and_its_neighbours_keep_the_batchs_shape(run):
    outputs, failed = run(raising(ValueError("odd input"), 5))
    assert outputs == [([4], 3), ([6], 3)]
    assert {p: (e.status, str(e)) for p, e in failed.items()} == {
        5: ("model_error", "ValueError: odd input")
    }


def test_what_every_clip_raises_is_no_matter_of_clips(run):
    with pytest.raises(ValueError, match="a bug"):
        run(raising(ValueError("a bug"), 4, 5, 6))


@pytest.mark.parametrize("error", [LiteError("too large"), RuntimeError("CUDA error: assert")])
def test_our_own_errors_and_a_broken_cuda_blame_no_clip(run, error):
    with pytest.raises(type(error), match=str(error)):
        run(raising(error, 5), positions=(5,))


def test_an_actor_with_a_broken_cuda_ends(run, monkeypatch):
    def leave(code):
        raise SystemExit(code)

    monkeypatch.setattr(steps.os, "_exit", leave)
    with pytest.raises(SystemExit, match="70"):
        run(raising(RuntimeError("CUDA error: assert"), 5), in_actor=True)
