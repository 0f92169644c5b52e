"""Shards that fail, hang or lose their process: who does them again, and who alone."""

from __future__ import annotations

import pytest

from pipeline.shards.executor import Attempt
from pipeline.shards.scheduler import MAX_LOSSES, Loss
from tests.scheduling import FakeExecutor, run


@pytest.mark.parametrize(("num_workers", "in_flight"), [(1, 1), (1, 2), (3, 1), (3, 2)])
def test_every_shard_is_done_exactly_once(num_workers, in_flight):
    executor = FakeExecutor(num_workers=num_workers, in_flight=in_flight)
    done, given_up, losses = run(executor, range(10))
    assert sorted(done) == list(range(10))
    assert given_up == losses == []


@pytest.mark.parametrize("fault", ["die", "raise", "hang", "lost"])
def test_a_shard_that_fails_once_is_tried_again(fault):
    executor = FakeExecutor({2: [fault]}, num_workers=2)
    done, given_up, losses = run(executor, range(5), shard_timeout_s=5.0)
    assert sorted(done) == [0, 1, 2, 3, 4]
    assert given_up == []
    assert [(loss.shard, loss.attempt) for loss in losses] == [(2, 1)]
    assert not any(executor.isolated.values())


def test_a_shard_that_always_raises_is_given_up_and_its_neighbours_are_done():
    executor = FakeExecutor({2: ["raise"] * 99}, num_workers=2)
    done, given_up, losses = run(executor, range(6), max_attempts=3)
    assert sorted(done) == [0, 1, 3, 4, 5]
    assert [loss.shard for loss in given_up] == [2]
    assert len(losses) == 3


@pytest.mark.parametrize("fault", ["die", "lost"])
def test_a_shard_that_loses_every_process_is_given_up_after_a_dozen(fault):
    executor = FakeExecutor({2: [fault] * 99}, num_workers=2)
    done, given_up, _ = run(executor, range(6), max_attempts=1)
    assert sorted(done) == [0, 1, 3, 4, 5]
    assert [(loss.shard, loss.attempt) for loss in given_up] == [(2, MAX_LOSSES)]


def test_a_shard_that_nothing_can_mend_is_given_up_at_once():
    done, given_up, losses = run(FakeExecutor({1: ["hopeless"]}), range(3))
    assert done == [0, 2]
    assert given_up == losses == [Loss(1, 1, "it crashes", given_up=True)]


def test_a_hung_worker_is_killed_and_only_after_the_timeout():
    executor = FakeExecutor({0: ["hang"]})
    done, _, losses = run(executor, [0], shard_timeout_s=30.0)
    assert done == [0]
    assert executor.killed == [0]
    assert 30 < executor.now < 40
    assert "no result within 30 s" in losses[0].reason


def test_the_time_before_a_worker_is_given_a_shard_does_not_count():
    executor = FakeExecutor()
    executor.now = 1000.0
    done, _, losses = run(executor, [0, 1], shard_timeout_s=3.0)
    assert done == [0, 1]
    assert losses == []


def test_time_counts_from_the_last_shard_that_a_worker_finished():
    # One shard a tick: five in a row take longer than the limit, each alone does not.
    executor = FakeExecutor(in_flight=2)
    done, _, losses = run(executor, range(20), shard_timeout_s=2.0)
    assert sorted(done) == list(range(20))
    assert losses == []


def test_what_is_given_to_a_worker_is_told_before():
    told = []
    executor = FakeExecutor({1: ["raise"]})
    run(executor, range(3), on_submit=lambda shard: told.append((shard, len(executor.log))))
    assert told == [(0, 0), (1, 1), (2, 2), (1, 3)]


def alone(executor):
    """Checks each isolated attempt against a replay of the log; the shards that had one."""
    isolated = [(n, shard) for n, (w, shard, _) in enumerate(executor.log) if executor.isolated[w]]
    for number, shard in isolated:
        worker = executor.log[number][0]
        # All that was given after it went to isolated workers too: nothing else was left.
        assert all(executor.isolated[w] for w, _, _ in executor.log[number:])
        # Its worker was given nothing before that it had not finished: one at a time.
        before = [s for w, s, _ in executor.log[:number] if w == worker]
        assert shard not in before
    return [shard for _, shard in isolated]


@pytest.mark.parametrize("num_workers", [1, 2])
@pytest.mark.parametrize("in_flight", [1, 2])
def test_what_loses_a_second_worker_is_done_after_all_else_and_alone(num_workers, in_flight):
    # Written out by hand: shard 1 dies twice, in whatever company, and then works.
    executor = FakeExecutor({1: ["die", "die"]}, num_workers=num_workers, in_flight=in_flight)
    done, given_up, _ = run(executor, range(8))
    assert sorted(done) == list(range(8))
    assert given_up == []
    assert 1 in alone(executor)
    assert executor.log[-1][1] in alone(executor)
    assert set(done[: 8 - len(alone(executor))]).isdisjoint(alone(executor))


def test_two_isolated_shards_are_never_on_one_worker_at_a_time():
    # `FakeExecutor.submit` asserts it; here with room for two, and both to be isolated.
    executor = FakeExecutor({0: ["die", "die"], 1: ["die", "die"]}, in_flight=2)
    done, _, _ = run(executor, [0, 1])
    assert sorted(done) == [0, 1]
    assert set(alone(executor)) == {0, 1}


def test_normal_workers_are_gone_before_a_shard_is_alone():
    executor = FakeExecutor({0: ["die", "die"]}, num_workers=3)
    run(executor, range(6))
    assert alone(executor) == [0]
    assert list(executor.given) == [executor.log[-1][0]], "who is still there at the end"


def test_losses_of_earlier_runs_count():
    executor = FakeExecutor()
    done, _, _ = run(executor, range(4), losses={0: 1, 2: 2})
    assert done == [1, 3, 0, 2]
    assert alone(executor) == [2]


def test_an_isolated_shard_that_hangs_is_left_to_its_own_worker():
    # It has a time limit of its own, per step.
    executor = FakeExecutor({0: ["hang", "hang"]})
    run(executor, [0], shard_timeout_s=3.0)
    assert len(executor.killed) == 2
    assert executor.isolated[2]


def test_a_shard_given_to_the_same_worker_is_no_victim_of_its_neighbour():
    # Shards 0 and 1 share a worker; 0 kills it every time.
    executor = FakeExecutor({0: ["die"] * 99}, in_flight=2)
    done, given_up, _ = run(executor, range(4))
    assert sorted(done) == [1, 2, 3]
    assert [loss.shard for loss in given_up] == [0]


def test_a_shard_committed_just_before_the_death_counts_as_done():
    executor = FakeExecutor({0: ["die"] * 99})
    recovered = {"shard": 0, "works": True}
    done, given_up, losses = run(
        executor, [0, 1], recover=lambda shard: recovered if shard == 0 else None
    )
    assert sorted(done) == [0, 1]
    assert given_up == losses == []


def test_at_the_tail_no_worker_hoards_a_second_shard():
    executor = FakeExecutor(num_workers=2, in_flight=2)
    run(executor, [0, 1])
    assert [(shard, attempt) for _, shard, attempt in executor.log] == [
        (0, Attempt()),
        (1, Attempt()),
    ]
    assert len({worker for worker, _, _ in executor.log}) == 2
