"""The search for a clip that kills its worker: what each death teaches, and what it costs."""

from __future__ import annotations

import pytest

from pipeline.shards.poison import DEATHS_TO_BLAME, MAX_CULPRITS, Findings, Isolation
from pipeline.store.root import Root


@pytest.fixture
def isolation(tmp_path):
    return Isolation(Root(tmp_path))


def die(isolation, clips, shard=3):
    """The worker touched `clips` and died; whether that taught something."""
    isolation.touching(shard, clips)
    return isolation.learn(shard)


def test_a_search_narrows_from_shard_to_batch_to_clip(isolation):
    assert isolation.findings(3) is None
    assert die(isolation, None)
    assert isolation.findings(3) == Findings()
    assert die(isolation, [12, 13])
    assert isolation.findings(3) == Findings(frozenset({12, 13}))
    assert die(isolation, [13])
    assert isolation.findings(3).culprits == frozenset()
    assert die(isolation, [13])
    assert isolation.findings(3).culprits == {13}
    assert isolation.findings(2) is None


def test_a_second_culprit_of_the_same_shard_is_found_too(isolation):
    for clips in (None, [12, 13], [13], [13], [12], [12]):
        assert die(isolation, clips)
    assert isolation.findings(3).culprits == {12, 13}


@pytest.mark.parametrize("clips", [None, [], [12, 13]])
def test_a_death_that_repeats_what_is_known_teaches_nothing(isolation, clips):
    die(isolation, None)
    die(isolation, [12, 13])
    assert not die(isolation, clips)


def test_a_death_without_a_trace_teaches_nothing(isolation):
    assert not isolation.learn(3)
    isolation.touching(3, [1])
    isolation.let_go(3)
    assert not isolation.learn(3)


def test_one_death_is_counted_once(isolation):
    die(isolation, [7])
    assert not isolation.learn(3)
    assert isolation.findings(3).deaths == {7: 1}


def test_there_is_a_limit_to_what_counts_as_the_clips_doing(isolation):
    for clip in range(MAX_CULPRITS):
        for _ in range(DEATHS_TO_BLAME):
            assert die(isolation, [clip])
    assert not die(isolation, [99])


def test_a_commit_forgets_the_search(isolation, tmp_path):
    die(isolation, [7])
    isolation.touching(3, [8])
    isolation.committed(3)
    assert isolation.findings(3) is None
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_killed_run_leaves_its_trace_to_the_next(isolation):
    isolation.touching(3, [7])
    isolation.touching(11, None)
    assert isolation.learn_from_the_last_run() == [3, 11]
    assert isolation.findings(3).deaths == {7: 1}
    assert isolation.findings(11) == Findings()
    assert isolation.learn_from_the_last_run() == []


def test_a_run_that_was_stopped_leaves_none(isolation):
    isolation.touching(3, [7])
    isolation.let_go_of_all()
    assert isolation.learn_from_the_last_run() == []


def test_an_attempt_leaves_no_trace_of_its_clips_before_a_death(isolation):
    with isolation.guarding(3, [12, 13], cautious=False) as guard, guard.touching([0]):
        assert isolation.learn(3)
    assert isolation.findings(3) is None, "the commit forgets the search"


def test_an_attempt_after_a_death_leaves_a_trace_of_its_clips(isolation):
    die(isolation, None)
    with isolation.guarding(3, [12, 13], cautious=False) as guard:
        with guard.touching([1]):
            isolation.learn(3)
        assert isolation.findings(3).deaths == {13: 1}
        isolation.learn(3)  # between two steps: no clip's doing
        assert isolation.findings(3).deaths == {13: 1}


def test_an_attempt_that_raises_blames_no_clip(isolation):
    with (
        pytest.raises(OSError, match="no space"),
        isolation.guarding(3, [12, 13], cautious=True) as guard,
        guard.touching([0, 1]),
    ):
        raise OSError("no space left on device")
    assert not isolation.learn(3)


def test_a_guard_names_culprits_by_position(isolation):
    for clips in ([13], [13], [12]):
        die(isolation, clips)
    with isolation.guarding(3, [11, 12, 13], cautious=False) as guard:
        assert guard.culprits == [2]
