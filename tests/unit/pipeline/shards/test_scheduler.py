"""The driver's rules, on an executor that dies, hangs and raises on command, without processes."""

from __future__ import annotations

from collections import defaultdict, deque

import pytest

from pipeline.errors import BackboneError, DriverError
from pipeline.shards.executor import (
    Attempt,
    Died,
    Event,
    Finished,
    Raised,
    Started,
    StartFailed,
)
from pipeline.shards.scheduler import Loss, Scheduler


class FakeExecutor:
    """Runs one scripted outcome per `wait`; `script[shard]` lists outcomes, then success.

    Outcomes: "die", "raise", "hang" (nothing until killed), or None for success.
    """

    def __init__(self, script=None, num_workers=1, in_flight=1, starts=()):
        self.num_workers, self.in_flight = num_workers, in_flight
        self.script = defaultdict(list, {k: list(v) for k, v in (script or {}).items()})
        self.starts = deque(starts)
        self.events: deque[Event] = deque()
        self.hands: dict[int, list[int]] = {}
        self.log: list[tuple[int, Attempt]] = []
        self.company: dict[int, int] = {}
        self.killed: list[int] = []
        self.now = 0.0
        self._next = 0

    def start(self):
        worker, self._next = self._next, self._next + 1
        error = self.starts.popleft() if self.starts else None
        self.hands[worker] = []
        self.events.append(StartFailed(worker, error) if error else Started(worker))
        return worker

    def submit(self, worker, shard, attempt):
        self.hands[worker].append(shard)
        self.log.append((shard, attempt))
        assert len(self.hands[worker]) <= self.in_flight
        if attempt.cautious:
            assert self.hands[worker] == [shard], "a cautious shard runs alone"

    def wait(self, timeout_s):
        self.now += timeout_s
        if self.events:
            return [self.events.popleft()]
        for worker, shards in self.hands.items():
            if not shards:
                continue
            shard = shards[0]
            outcome = self.script[shard][0] if self.script[shard] else None
            if outcome == "hang":
                continue
            if self.script[shard]:
                self.script[shard].pop(0)
            if outcome == "die":
                del self.hands[worker]
                return [Died(worker, "killed")]
            shards.pop(0)
            if outcome == "raise":
                return [Raised(worker, shard, ValueError("bad luck"))]
            return [Finished(worker, shard, {"shard": shard})]
        return []

    def kill(self, worker):
        self.killed.append(worker)
        for shard in self.hands.pop(worker):
            if self.script[shard] and self.script[shard][0] == "hang":
                self.script[shard].pop(0)

    def close(self):
        pass


def run(executor, shards, **options):
    """Runs the loop; returns (finished shards in order, given-up losses, all losses)."""
    reports: list[dict] = []
    losses: list[Loss] = []
    options = {"max_attempts": 3, "shard_timeout_s": None, **options}
    loop = Scheduler(
        executor=executor,
        shards=shards,
        on_report=reports.append,
        on_loss=losses.append,
        clock=lambda: executor.now,
        **options,
    )
    given_up = loop.run()
    return [report["shard"] for report in reports], given_up, losses


@pytest.mark.parametrize(("num_workers", "in_flight"), [(1, 1), (1, 2), (3, 1), (3, 2)])
def test_every_shard_is_done_exactly_once(num_workers, in_flight):
    executor = FakeExecutor(num_workers=num_workers, in_flight=in_flight)
    done, given_up, losses = run(executor, range(10))
    assert sorted(done) == list(range(10))
    assert given_up == losses == []


@pytest.mark.parametrize("fault", ["die", "raise", "hang"])
def test_a_shard_that_fails_once_is_tried_again(fault):
    executor = FakeExecutor({2: [fault]}, num_workers=2)
    done, given_up, losses = run(executor, range(5), shard_timeout_s=5.0)
    assert sorted(done) == [0, 1, 2, 3, 4]
    assert given_up == []
    assert [(loss.shard, loss.attempt) for loss in losses] == [(2, 1)]


@pytest.mark.parametrize("fault", ["die", "raise", "hang"])
def test_a_shard_that_always_fails_is_given_up_and_its_neighbours_are_done(fault):
    executor = FakeExecutor({2: [fault] * 99}, num_workers=2)
    done, given_up, losses = run(executor, range(6), max_attempts=3, shard_timeout_s=5.0)
    assert sorted(done) == [0, 1, 3, 4, 5]
    assert [loss.shard for loss in given_up] == [2]
    assert len(losses) == 3


def test_a_hung_worker_is_killed_and_only_after_the_timeout():
    executor = FakeExecutor({0: ["hang"]})
    done, _, losses = run(executor, [0], shard_timeout_s=30.0)
    assert done == [0]
    assert executor.killed == [0]
    assert 30 < executor.now < 40
    assert "no result within 30 s" in losses[0].reason


def test_after_a_death_the_shard_is_retried_cautiously_and_alone():
    executor = FakeExecutor({1: ["die"]}, in_flight=2)  # FakeExecutor asserts "alone"
    run(executor, range(8))
    assert (1, Attempt(2, cautious=True)) in executor.log


def test_a_shard_in_the_same_hand_gets_no_strike():
    # Shards 0 and 1 share a worker; 0 kills it every time. 1 must not be charged for the first.
    executor = FakeExecutor({0: ["die"] * 99}, in_flight=2)
    done, given_up, losses = run(executor, range(4), max_attempts=1)
    assert sorted(done) == [1, 2, 3]
    assert [loss.shard for loss in given_up] == [0]
    assert [loss.shard for loss in losses].count(1) == 1


def test_a_death_that_taught_something_is_no_strike():
    executor = FakeExecutor({0: ["die"] * 5})
    lessons = iter([True, True, True, True, False])
    done, given_up, losses = run(
        executor, [0, 1], max_attempts=2, learned=lambda shard: next(lessons)
    )
    assert sorted(done) == [0, 1]
    assert given_up == []
    assert len(losses) == 5


def test_a_shard_committed_just_before_the_death_counts_as_done():
    executor = FakeExecutor({0: ["die"] * 99})
    done, given_up, losses = run(
        executor, [0, 1], recover=lambda shard: {"shard": shard} if shard == 0 else None
    )
    assert sorted(done) == [0, 1]
    assert given_up == losses == []


def test_a_worker_that_fails_to_start_is_tried_again():
    executor = FakeExecutor(starts=[OSError("no room"), OSError("no room")])
    done, _, _ = run(executor, [0, 1])
    assert done == [0, 1]


def test_workers_that_never_start_end_the_run_with_the_cause():
    executor = FakeExecutor(starts=[OSError("no room")] * 9, num_workers=2)
    with pytest.raises(DriverError, match="workers fail to start.*no room"):
        run(executor, range(4))


def test_an_error_of_our_own_at_the_start_ends_the_run_at_once():
    executor = FakeExecutor(starts=[BackboneError("no such checkpoint")])
    with pytest.raises(BackboneError, match="no such checkpoint"):
        run(executor, [0])


def test_a_fault_of_everything_ends_the_run_early():
    executor = FakeExecutor({shard: ["raise"] * 99 for shard in range(100)})
    with pytest.raises(DriverError, match="different shards failed in a row.*bad luck"):
        run(executor, range(100))
    assert len(executor.log) < 10


def test_losing_all_workers_once_does_not_end_the_run():
    executor = FakeExecutor({shard: ["die"] for shard in range(8)}, num_workers=8, in_flight=2)
    done, given_up, _ = run(executor, range(30))
    assert sorted(done) == list(range(30))
    assert given_up == []


def test_at_the_tail_no_worker_hoards_a_second_shard():
    executor = FakeExecutor(num_workers=2, in_flight=2)
    run(executor, [0, 1])
    assert executor.log == [(0, Attempt()), (1, Attempt())]
    assert max(len(hand) for hand in executor.hands.values()) == 0
