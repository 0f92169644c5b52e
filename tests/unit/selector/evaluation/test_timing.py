"""The model's clock and the wall's."""

from __future__ import annotations

import time

import pytest
import torch

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
    with watch.phase("compute"):
        time.sleep(0.05)
    assert watch.now() - began < 0.04
    assert watch.timing.compute >= 0.05
    assert watch.timing.phases()["compute"] == watch.timing.compute


def test_waiting_is_decoding(one_thread):
    def slow():
        for item in range(2):
            time.sleep(0.02)
            yield item

    watch = Stopwatch(torch.device("cpu"))
    assert list(watch.waiting_for(slow())) == [0, 1]
    assert watch.timing.decode >= 0.04
    assert watch.timing.compute == 0


def test_timings_survive_json():
    timing = Timing(clips=3, decode=1.5, rank={"oracle[embeddings,fem]": 2.0}, forward={"0": 1.0})
    assert Timing.from_json(timing.to_json()) == timing
