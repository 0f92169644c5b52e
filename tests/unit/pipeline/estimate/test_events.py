"""Simulated time: order, and what work takes where others share the capacity."""

from __future__ import annotations

import math

import pytest

from pipeline.estimate.events import Shared, Timeline


def ends(capacity: float, jobs: list[tuple[float, float, float]]) -> list[float]:
    """When each of some (begin, seconds, demand) is done."""
    timeline = Timeline()
    shared = Shared(timeline, capacity)
    done = [math.nan] * len(jobs)

    def begin(number: int, seconds: float, demand: float) -> None:
        def end() -> None:
            done[number] = timeline.now

        shared.add(seconds, end, demand)

    for number, (at, seconds, demand) in enumerate(jobs):
        timeline.after(at, lambda n=number, s=seconds, d=demand: begin(n, s, d))
    while timeline.step():
        pass
    return done


def test_what_fits_goes_at_full_speed() -> None:
    assert ends(2, [(0, 3, 1), (1, 3, 1)]) == pytest.approx([3, 4])
    assert ends(math.inf, [(0, 3, 1)] * 5) == pytest.approx([3] * 5)


def test_four_on_two_cores_take_twice_as_long() -> None:
    assert ends(2, [(0, 3, 1)] * 4) == pytest.approx([6] * 4)


def test_who_comes_later_slows_the_others_from_then_on() -> None:
    # Alone until 1; then half speed: the first has 1 s left, which takes 2. Then the second is
    # alone, with 2 of its 3 s left.
    assert ends(1, [(0, 2, 1), (1, 3, 1)]) == pytest.approx([3, 5])


def test_a_demand_of_several_cores_counts_as_such() -> None:
    # 3 + 1 cores asked of 2: half speed until the short one has had its second, at 2. The long
    # one then asks 3 of 2, and has 3 of its 4 s left: 4.5 more.
    assert ends(2, [(0, 4, 3), (0, 1, 1)]) == pytest.approx([6.5, 2])


def test_events_of_one_time_come_in_order_of_asking() -> None:
    timeline, seen = Timeline(), []
    for number in range(3):
        timeline.after(1.0, lambda number=number: seen.append(number))
    timeline.run(0.5)
    assert (timeline.now, seen) == (0.5, [])
    timeline.run(5.0)
    assert (timeline.now, seen) == (5.0, [0, 1, 2])
