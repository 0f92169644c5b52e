"""The model's clock and the wall's."""

from __future__ import annotations

import time

import pytest
import torch

from selector.evaluation.config import EvalConfig
from selector.evaluation.timing import Stopwatch, Timing


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_a_neighbour_that_takes_the_processor_does_not_slow_the_models_clock(one_thread):
    watch = Stopwatch(torch.device("cpu"))
    began = watch.now()
    time.sleep(0.05)
    assert watch.now() - began < 0.04


def test_on_a_gpu_the_clock_waits_for_the_device_that_is_measured(monkeypatch):
    waited = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device=None: waited.append(device))
    Stopwatch(torch.device("cuda", 1)).now()
    assert waited == [torch.device("cuda", 1)]


def test_timings_survive_json():
    timing = Timing(clips=3, rank={"oracle[embeddings,fem]": 2.0}, forward={"0": 1.0})
    assert Timing.from_json(timing.to_json()) == timing


def test_timings_of_an_earlier_release_are_read():
    assert Timing.from_json(
        b'{"clips": 3, "decode": 1.5, "embed": 2.0, "rank": {}, "forward": {"0": 1.0}}'
    ) == Timing(clips=3, embed=2.0, forward={"0": 1.0})


def test_every_method_with_seeds_is_ranked_once_a_clip():
    """Two seeds ranked in 6 s, so 3 s each; embedding 2 s, the blocks 5 s: 100 clips in 10 s."""
    methods = ("random", "random-tube", "uniform")
    config = EvalConfig(
        dataset="csv", split="all", backbone="b", methods=methods, keep_ratios=(0.5,), num_seeds=2
    )
    timing = Timing(
        clips=100,
        embed=2.0,
        rank={"random": 6.0, "random-tube": 6.0, "uniform": 3.0},
        forward={str(column): 5.0 for column in range(1, 6)},
    )
    assert timing.clips_per_s(config)[1:] == pytest.approx([10.0] * 5)
