"""The scheduler's rules, on an executor that dies, hangs and raises on command, in no process."""

from __future__ import annotations

from collections import defaultdict, deque

import pytest

from pipeline.errors import (
    BackboneError,
    DiskFullError,
    DriverError,
    LostProcessError,
    ModelFailsError,
    NoReadableVideoError,
    ShardError,
    UnfitWorkerError,
)
from pipeline.shards.executor import Attempt, Died, Event, Finished, Raised, Started, StartFailed
from pipeline.shards.scheduler import MAX_LOSSES, Loss, Scheduler

ERRORS = {
    "raise": ValueError("bad luck"),
    "lost": LostProcessError("the decoder was killed"),
    "hopeless": ShardError("it crashes"),
    "full": DiskFullError("no space left"),
    "unreadable": NoReadableVideoError("not one video"),
    "broken": ModelFailsError("the model fails"),
    "unfit": UnfitWorkerError("known.mp4 cannot be read"),
}
WORKS_NOT = "works not"  # a commit of which no clip works


class FakeExecutor:
    """Runs one scripted outcome per `wait`; `script[shard]` lists outcomes, then success.

    Outcomes: "die", "hang" (nothing until killed), a key of `ERRORS`, `WORKS_NOT` or None.
    """

    def __init__(self, script=None, num_workers=1, in_flight=1, starts=()):
        self.num_workers, self.in_flight = num_workers, in_flight
        self.script = defaultdict(list, {k: list(v) for k, v in (script or {}).items()})
        self.starts = deque(starts)
        self.events: deque[Event] = deque()
        self.given: dict[int, list[int]] = {}
        self.isolated: dict[int, bool] = {}
        self.log: list[tuple[int, int, Attempt]] = []
        self.killed: list[int] = []
        self.started_at: list[float] = []
        self.now = 0.0
        self._next = 0

    def start(self, *, isolated=False):
        worker, self._next = self._next, self._next + 1
        error = self.starts.popleft() if self.starts else None
        self.given[worker], self.isolated[worker] = [], isolated
        self.started_at.append(self.now)
        assert len(self.given) <= self.num_workers
        if error == "never":
            return worker
        if error == "die":
            self.events.append(Died(worker, "its node is gone"))
        elif error is not None:
            self.events.append(StartFailed(worker, error))
        else:
            self.events.append(Started(worker, {"device": "fake"}))
        if error is not None:
            del self.given[worker]
        return worker

    def submit(self, worker, shard, attempt):
        self.given[worker].append(shard)
        self.log.append((worker, shard, attempt))
        assert len(self.given[worker]) <= (1 if self.isolated[worker] else self.in_flight)

    def wait(self, timeout_s):
        self.now += timeout_s
        if self.events:
            return [self.events.popleft()]
        for worker, shards in self.given.items():
            if not shards:
                continue
            shard = shards[0]
            outcome = self.script[shard][0] if self.script[shard] else None
            if outcome == "hang":
                continue
            if self.script[shard]:
                self.script[shard].pop(0)
            if outcome == "die":
                del self.given[worker]
                return [Died(worker, "killed")]
            shards.pop(0)
            if outcome in ERRORS:
                return [Raised(worker, shard, ERRORS[outcome])]
            return [Finished(worker, shard, {"shard": shard, "works": outcome != WORKS_NOT})]
        return []

    def kill(self, worker):
        self.killed.append(worker)
        for shard in self.given.pop(worker):
            if self.script[shard] and self.script[shard][0] == "hang":
                self.script[shard].pop(0)

    def close(self):
        pass

    def workers_of(self, shard):
        return [worker for worker, given, _ in self.log if given == shard]


def run(executor, shards, **options):
    """Runs to the end; returns (finished shards in order, given-up losses, all losses)."""
    reports: list[dict] = []
    losses: list[Loss] = []
    options = {"max_attempts": 3, "shard_timeout_s": None, **options}
    scheduler = Scheduler(
        executor=executor,
        shards=shards,
        on_report=reports.append,
        on_loss=losses.append,
        works=lambda report: report["works"],
        clock=lambda: executor.now,
        **options,
    )
    given_up = scheduler.run()
    return [report["shard"] for report in reports], given_up, losses


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


# Workers that do not start


def test_a_worker_that_fails_to_start_is_tried_again():
    executor = FakeExecutor(starts=[OSError("no room"), OSError("no room")])
    done, _, _ = run(executor, [0, 1])
    assert done == [0, 1]


def test_workers_that_never_start_end_the_run_with_the_cause():
    executor = FakeExecutor(starts=[OSError("no room")] * 99, num_workers=2)
    with pytest.raises(DriverError, match="workers fail to start.*no room"):
        run(executor, range(4))
    assert len(executor.started_at) == 6  # two, three times


def test_workers_that_die_while_they_load_end_the_run_too():
    executor = FakeExecutor(starts=["die"] * 99)
    with pytest.raises(DriverError, match="workers fail to start.*its node is gone"):
        run(executor, range(4))
    assert len(executor.started_at) == 3


def test_a_worker_that_dies_at_work_is_no_failed_start():
    executor = FakeExecutor({0: ["die"] * 5}, num_workers=2)
    run(executor, range(30))
    assert executor.started_at[:3] == [0.0, 0.0, 1.5], "replaced at the next tick"


def test_an_error_of_our_own_at_the_start_ends_the_run_at_once():
    executor = FakeExecutor(starts=[BackboneError("no such checkpoint")])
    with pytest.raises(BackboneError, match="no such checkpoint"):
        run(executor, [0])


def test_a_node_lost_while_its_workers_load_ends_nothing():
    """Eight of 32 die before they are ready, and more than three in a row."""
    executor = FakeExecutor(num_workers=32, starts=["die"] * 8)
    done, given_up, _ = run(executor, range(100))
    assert sorted(done) == list(range(100))
    assert given_up == []


def test_one_node_with_another_checkpoint_ends_nothing():
    executor = FakeExecutor(num_workers=3, starts=[None, BackboneError("another digest")])
    done, _, _ = run(executor, range(20))
    assert sorted(done) == list(range(20))


def test_workers_that_fail_while_others_work_are_started_again_after_growing_pauses():
    executor = FakeExecutor(num_workers=2, starts=[None, *[OSError("hub")] * 99])
    done, _, _ = run(executor, range(300))
    assert sorted(done) == list(range(300))
    pauses = [b - a for a, b in zip(executor.started_at[1:], executor.started_at[2:], strict=False)]
    assert len(pauses) >= 3
    assert all(5 * 2**n <= pause < 5 * 2**n + 2 for n, pause in enumerate(pauses)), pauses


def test_what_a_worker_says_at_its_start_is_passed_on():
    told = []
    run(FakeExecutor(num_workers=2), range(4), on_start=told.append)
    assert told == [{"device": "fake"}] * 2


# Faults of everything


def test_a_fault_of_everything_ends_the_run_early():
    executor = FakeExecutor({shard: ["raise"] * 99 for shard in range(100)})
    with pytest.raises(DriverError, match="different shards failed in a row.*bad luck"):
        run(executor, range(100))
    assert len(executor.log) < 10


def test_failures_between_successes_are_no_fault_of_everything():
    script = {shard: ["raise"] for shard in (1, 3, 5, 7)} | {9: ["raise"] * 4}
    done, given_up, _ = run(FakeExecutor(script), range(10), max_attempts=9)
    assert sorted(done) == list(range(10))
    assert given_up == []


def test_losing_all_workers_once_does_not_end_the_run():
    executor = FakeExecutor({shard: ["die"] for shard in range(8)}, num_workers=8, in_flight=2)
    done, given_up, _ = run(executor, range(30))
    assert sorted(done) == list(range(30))
    assert given_up == []


def test_a_full_disk_ends_the_run_at_its_first_sign():
    executor = FakeExecutor({3: ["full"]}, num_workers=2)
    with pytest.raises(DiskFullError, match="no space left"):
        run(executor, range(100))
    assert len(executor.workers_of(3)) == 1
    assert len(executor.log) < 8


# Shards of which nothing works


def test_an_unreadable_shard_costs_its_worker_and_gets_another():
    executor = FakeExecutor({1: ["unreadable"]}, num_workers=2)
    done, given_up, _ = run(executor, range(6))
    assert sorted(done) == list(range(6))
    assert given_up == []
    first, second = executor.workers_of(1)
    assert first in executor.killed
    assert second != first


def test_a_node_that_lost_its_mount_loses_its_workers_and_no_shard():
    # Every worker of the node takes two shards and finds nothing; then new ones do not start there.
    script = {shard: ["unfit"] for shard in range(8)}
    executor = FakeExecutor(
        script,
        num_workers=4,
        in_flight=2,
        starts=[None] * 4 + [UnfitWorkerError("known.mp4 cannot be read")] * 3,
    )
    done, given_up, _ = run(executor, range(40))
    assert sorted(done) == list(range(40))
    assert given_up == []


def test_a_dataset_that_is_gone_for_every_worker_ends_the_run():
    executor = FakeExecutor(
        {3: ["unfit"]}, starts=[None, UnfitWorkerError("known.mp4 cannot be read")]
    )
    with pytest.raises(UnfitWorkerError, match="known.mp4 cannot be read"):
        run(executor, range(10))
    assert [shard for _, shard, _ in executor.log] == [0, 1, 2, 3]


def test_the_third_unreadable_shard_ends_the_run():
    executor = FakeExecutor({shard: ["unreadable"] * 9 for shard in range(2, 100)})
    with pytest.raises(NoReadableVideoError, match="not one video.*3 whole shards"):
        run(executor, range(100))
    assert [shard for _, shard, _ in executor.log] == [0, 1, 2, 2, 3, 3, 4, 4]
    assert not any(attempt.final for _, _, attempt in executor.log)


def test_fewer_unreadable_shards_are_recorded_once_a_worker_shows_that_others_work():
    executor = FakeExecutor(
        {1: ["unreadable", "unreadable", WORKS_NOT], 4: ["unreadable", "unreadable", WORKS_NOT]}
    )
    done, given_up, _ = run(executor, range(6))
    assert done == [0, 2, 3, 5, 1, 4]
    assert given_up == []
    final = [(worker, shard) for worker, shard, attempt in executor.log if attempt.final]
    proven = executor.workers_of(5)[0]
    assert final == [(proven, 1), (proven, 4)]


@pytest.mark.parametrize("fault", ["unreadable", "broken"])
def test_a_run_in_which_nothing_works_records_nothing(fault):
    executor = FakeExecutor({0: [fault] * 9, 1: [fault] * 9})
    with pytest.raises(type(ERRORS[fault]), match=str(ERRORS[fault])):
        run(executor, [0, 1])
    assert not any(attempt.final for _, _, attempt in executor.log)


@pytest.mark.parametrize("fault", ["unreadable", "broken"])
def test_the_last_shard_of_a_store_is_settled_by_one_that_was_committed(fault):
    executor = FakeExecutor({7: [fault, fault, WORKS_NOT]})
    done, given_up, _ = run(executor, [7], proof=lambda: 3)
    assert done == [7], "the proof is no news"
    assert given_up == []
    told = [(shard, attempt.final, attempt.dry_run) for _, shard, attempt in executor.log]
    assert told == [(7, False, False), (7, False, False), (3, False, True), (7, True, False)]


@pytest.mark.parametrize("fault", ["unreadable", "broken", "unfit"])
def test_a_proof_that_fails_ends_the_run(fault):
    executor = FakeExecutor({7: ["broken", "broken"], 3: [fault]})
    with pytest.raises(type(ERRORS[fault]), match=str(ERRORS[fault])):
        run(executor, [7], proof=lambda: 3)


def test_an_isolated_shard_needs_the_proof_too():
    script = {7: ["die", "die", "unreadable", "unreadable", WORKS_NOT]}
    with pytest.raises(NoReadableVideoError):
        run(FakeExecutor(script), [7])
    executor = FakeExecutor(script)
    done, _, _ = run(executor, [7], proof=lambda: 3)
    assert done == [7]
    told = [(shard, attempt.final, attempt.dry_run) for _, shard, attempt in executor.log]
    assert told[-2:] == [(3, False, True), (7, True, False)]


def test_a_proof_that_loses_a_process_is_tried_again():
    executor = FakeExecutor({7: ["broken", "broken", WORKS_NOT], 3: ["lost", "die"]})
    done, _, _ = run(executor, [7], proof=lambda: 3)
    assert done == [7]
    assert [shard for _, shard, _ in executor.log] == [7, 7, 3, 3, 3, 7]
    assert not any(executor.isolated.values())


def test_a_proof_that_cannot_be_had_ends_the_run():
    executor = FakeExecutor({7: ["broken", "broken"], 3: ["raise"] * 9})
    with pytest.raises(DriverError, match="shard 3, which was committed, fails now.*bad luck"):
        run(executor, [7], proof=lambda: 3)


def test_a_model_that_works_elsewhere_may_fail_on_any_number_of_shards():
    executor = FakeExecutor({s: ["broken", "broken", WORKS_NOT] for s in (1, 2, 3, 4)})
    done, given_up, _ = run(executor, range(8))
    assert done == [0, 5, 6, 7, 1, 2, 3, 4]
    assert given_up == []


def test_a_model_that_stops_working_has_to_show_that_it_still_does():
    script = {shard: ["broken"] * 9 for shard in range(2, 100)} | {0: [None, "broken"]}
    executor = FakeExecutor(script)
    with pytest.raises(ModelFailsError, match="the model fails$"):
        run(executor, range(100), proof=lambda: 0)
    told = [(shard, attempt.dry_run) for _, shard, attempt in executor.log]
    twice = [(shard, False) for shard in (2, 3, 4) for _ in range(2)]
    assert told == [(0, False), (1, False), *twice, (0, True)]


def test_a_model_that_still_works_may_go_on():
    executor = FakeExecutor({s: ["broken", "broken", WORKS_NOT] for s in (1, 2, 3, 4)})
    done, _, _ = run(executor, range(8), proof=lambda: 0)
    assert done == [0, 5, 6, 7, 1, 2, 3, 4]
    assert [shard for _, shard, attempt in executor.log if attempt.dry_run] == [0]


def test_a_model_that_never_worked_ends_the_run_with_its_own_error():
    executor = FakeExecutor({shard: ["broken"] * 9 for shard in range(100)}, num_workers=2)
    with pytest.raises(ModelFailsError, match="the model fails.*3 whole shards"):
        run(executor, range(100))


def test_an_isolated_shard_of_which_nothing_works_is_settled_too():
    executor = FakeExecutor({1: ["die", "die", "broken", "broken", WORKS_NOT]})
    done, given_up, _ = run(executor, range(3), proof=lambda: 0)
    assert sorted(done) == [0, 1, 2]
    assert given_up == []
    last = executor.log[-1]
    assert (last[1], last[2].final, executor.isolated[last[0]]) == (1, True, True)


def test_a_proven_worker_that_dies_is_replaced_by_another_proof():
    executor = FakeExecutor({7: ["broken", "broken", "die", WORKS_NOT]}, num_workers=2)
    done, _, _ = run(executor, [7], proof=lambda: 3)
    assert done == [7]
    assert [shard for _, shard, _ in executor.log] == [7, 7, 3, 7, 3, 7]


def test_at_the_tail_no_worker_hoards_a_second_shard():
    executor = FakeExecutor(num_workers=2, in_flight=2)
    run(executor, [0, 1])
    assert [(shard, attempt) for _, shard, attempt in executor.log] == [
        (0, Attempt()),
        (1, Attempt()),
    ]
    assert len({worker for worker, _, _ in executor.log}) == 2
