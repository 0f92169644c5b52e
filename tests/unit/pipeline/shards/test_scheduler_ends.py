"""Workers that do not start and faults of everything: when a run ends, and with which error."""

from __future__ import annotations

import pytest

from pipeline.errors import (
    BackboneError,
    DiskFullError,
    DriverError,
    ModelFailsError,
    NoReadableVideoError,
    UnfitWorkerError,
)
from tests.scheduling import ERRORS, WORKS_NOT, FakeExecutor, run

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
