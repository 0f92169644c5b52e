"""Averaging views: equal to doing it at once in memory, wherever the shards cut."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.cli.evaluate_report import echo_summary
from pipeline.errors import ConfigError, StoreError
from selector.evaluation.report.summary import summarise
from selector.evaluation.results import pool, read_outcomes
from tests.evaluations import make_evaluation

LABELS = [0, 1, 2, 3, 4, 0, 1]
NUM_CONDITIONS, NUM_CLASSES = 3, 5


def make_logits(num_clips, seed=0):
    return np.random.default_rng(seed).normal(size=(num_clips, NUM_CONDITIONS, NUM_CLASSES)) * 3


def softmax(logits):
    exp = np.exp(logits)
    return exp / exp.sum(-1, keepdims=True)


def ranks(scores, labels):
    """Place of each label, scores (V, M, C)."""
    of_label = np.take_along_axis(scores, np.array(labels)[:, None, None], 2)
    return (scores > of_label).sum(2)


def test_one_view_is_its_own_video(tmp_path):
    logits = make_logits(7)
    outcomes = read_outcomes(make_evaluation(tmp_path, logits, LABELS))
    assert outcomes.labels.tolist() == LABELS
    assert np.array_equal(outcomes.label_rank, ranks(logits, LABELS))
    np.testing.assert_allclose(outcomes.confidence, softmax(logits).max(2), rtol=1e-5)
    assert (outcomes.num_failed, outcomes.num_missing) == (0, 0)


@pytest.mark.parametrize("shard_size", [4, 6, 7, 64])
def test_the_mean_of_the_views_decides_whatever_the_shards(tmp_path, shard_size):
    logits = make_logits(7 * 6)
    evaluation = make_evaluation(tmp_path, logits, LABELS, views=(2, 3), shard_size=shard_size)
    outcomes = read_outcomes(evaluation)
    mean = softmax(logits).reshape(7, 6, NUM_CONDITIONS, NUM_CLASSES).mean(1)
    assert np.array_equal(outcomes.label_rank, ranks(mean, LABELS))
    np.testing.assert_allclose(outcomes.confidence, mean.max(2), rtol=1e-3)


def test_views_apart_are_outcomes_of_their_own(tmp_path):
    logits = make_logits(7 * 2)
    evaluation = make_evaluation(tmp_path, logits, LABELS, views=(1, 2), failed=[(4, 0), (7, 2)])
    outcomes = read_outcomes(evaluation, views_apart=True)
    clips = [clip for clip in range(14) if clip not in (4, 7)]
    assert outcomes.clip_ids.tolist() == clips
    assert outcomes.video_ids.tolist() == [f"v{clip // 2:05d}" for clip in clips]
    assert outcomes.labels.tolist() == [LABELS[clip // 2] for clip in clips]
    assert np.array_equal(outcomes.label_rank, ranks(logits[clips], outcomes.labels))
    np.testing.assert_allclose(outcomes.confidence, softmax(logits[clips]).max(2), rtol=1e-5)
    assert (outcomes.num_failed, outcomes.num_missing) == (2, 0)
    together = read_outcomes(evaluation)
    assert together.clip_ids.tolist() == list(range(0, 14, 2))


def test_a_failed_view_leaves_the_mean_of_the_others(tmp_path):
    logits = make_logits(7 * 2)
    evaluation = make_evaluation(tmp_path, logits, LABELS, views=(1, 2), failed=[(4, 0), (7, 2)])
    outcomes = read_outcomes(evaluation)
    shares = softmax(logits).reshape(7, 2, NUM_CONDITIONS, NUM_CLASSES)
    mean = shares.mean(1)
    mean[2, 0] = shares[2, 1, 0]  # clip 4 is view 0 of video 2
    mean[3, 2] = shares[3, 0, 2]
    assert np.array_equal(outcomes.label_rank, ranks(mean, LABELS))
    np.testing.assert_allclose(outcomes.confidence, mean.max(2), rtol=1e-3)
    assert outcomes.num_failed == 0


def test_a_video_that_failed_under_one_condition_is_left_out_of_all(tmp_path):
    """So that every column is over the same videos."""
    logits = make_logits(7)
    outcomes = read_outcomes(make_evaluation(tmp_path, logits, LABELS, failed=[(2, 1), (6, 0)]))
    keep = [0, 1, 3, 4, 5]
    assert outcomes.video_ids.tolist() == [f"v0000{i}" for i in keep]
    assert np.array_equal(outcomes.label_rank, ranks(logits, LABELS)[keep])
    assert outcomes.num_failed == 2


def test_the_methods_that_lost_videos_are_counted_and_can_be_left_out(tmp_path, capsys):
    """`make_info`'s conditions: full, random with seed 0, random with seed 1, and uniform."""
    logits = np.random.default_rng(1).normal(size=(7, 4, NUM_CLASSES))
    evaluation = make_evaluation(
        tmp_path,
        logits,
        LABELS,
        methods=("random", "uniform"),
        failed=[(1, 3), (2, 2), (2, 3), (5, 3), *((6, column) for column in range(4))],
    )
    outcomes = read_outcomes(evaluation)
    assert outcomes.video_ids.tolist() == ["v00000", "v00003", "v00004"]
    # Video 6 is nobody's: the full model failed too.
    assert (outcomes.num_failed, outcomes.failed_by) == (4, {"random": 1, "uniform": 3})

    others = read_outcomes(evaluation, without=["uniform"])
    assert others.video_ids.tolist() == ["v00000", "v00001", "v00003", "v00004", "v00005"]
    assert (others.num_failed, others.failed_by) == (2, {"random": 1})
    assert np.array_equal(others.label_rank[:, :3], ranks(logits, LABELS)[[0, 1, 3, 4, 5], :3])
    summary = summarise(evaluation, without=["uniform"], num_draws=100)
    assert {row.method for row in summary.table} == {"full", "random"}
    echo_summary(summary)
    text = capsys.readouterr().out
    assert "left out: 2 videos" in text
    assert "1 of them the full model did and random did not" in text
    assert "--without 'random'" in text
    with pytest.raises(ConfigError, match="cannot leave out magic: .* evaluates random, uniform"):
        read_outcomes(evaluation, without=["magic"])


def test_a_method_that_did_no_video_is_named(tmp_path):
    failed = [(clip, 2) for clip in range(7)]
    evaluation = make_evaluation(tmp_path, make_logits(7), LABELS, failed=failed)
    with pytest.raises(StoreError, match="none of the 7 .*leave out what failed: --without 'ran"):
        summarise(evaluation)


def test_the_mass_of_a_video_is_the_mean_of_the_views_that_worked(tmp_path):
    mass = np.tile([np.nan, 0.25, 0.5], (7 * 2, 1))
    mass[4] = [np.nan, 0.75, 1.0]  # view 0 of video 2
    mass[6] = [np.nan, 1.0, 1.0]
    evaluation = make_evaluation(
        tmp_path, make_logits(7 * 2), LABELS, views=(1, 2), mass=mass, failed=[(6, 1)]
    )
    outcomes = read_outcomes(evaluation)
    assert np.isnan(outcomes.mass[:, 0]).all()
    assert outcomes.mass[2, 1:].tolist() == [0.5, 0.75]
    assert outcomes.mass[3, 1:].tolist() == [0.25, 0.75]


def test_a_video_cut_by_a_missing_shard_is_missing(tmp_path):
    logits = make_logits(7 * 2)
    evaluation = make_evaluation(
        tmp_path, logits, LABELS, views=(1, 2), shard_size=5, shards=[0, 2]
    )
    outcomes = read_outcomes(evaluation)
    # Clips 5 to 9 are missing: videos 2 (clips 4, 5), 3 and 4.
    assert outcomes.video_ids.tolist() == ["v00000", "v00001", "v00005", "v00006"]
    assert (outcomes.num_failed, outcomes.num_missing) == (0, 3)


GROUPS = ["a", "a", None, "b", "b", "a", None]


def test_a_video_without_a_group_is_its_own(tmp_path):
    evaluation = make_evaluation(tmp_path, make_logits(7), LABELS, groups=GROUPS, failed=[(1, 0)])
    assert read_outcomes(evaluation).groups.tolist() == ["a", "v00002", "b", "b", "a", "v00006"]
    assert summarise(evaluation).num_groups == 4


def test_intervals_are_over_groups_where_there_are_some(tmp_path, capsys):
    logits = make_logits(7 * 6).repeat(3, axis=0)  # every clip three times
    labels = np.arange(42).repeat(3) % 5
    grouped = make_evaluation(
        tmp_path / "g", logits, labels, groups=[f"{i // 3}" for i in range(126)]
    )
    apart = make_evaluation(tmp_path / "a", logits, labels)
    once = make_evaluation(tmp_path / "o", logits[::3], labels[::3])
    found, wide, narrow = (summarise(e) for e in (grouped, once, apart))
    for row, same, other in zip(found.table, wide.table, narrow.table, strict=True):
        width = row.top1_high - row.top1_low
        assert width == pytest.approx(same.top1_high - same.top1_low, rel=0.15)
        assert width > 1.4 * (other.top1_high - other.top1_low)
    assert [p.p_value for p in found.paired] == pytest.approx([p.p_value for p in wide.paired])
    echo_summary(found)
    assert "over 42 groups of the videos" in " ".join(capsys.readouterr().out.split())


def test_pooled_folds_are_the_whole(tmp_path):
    logits = make_logits(7)
    whole = read_outcomes(make_evaluation(tmp_path / "w", logits, LABELS, groups=GROUPS))
    half = [
        make_evaluation(tmp_path / str(k), logits, LABELS, groups=GROUPS, shards=[k])
        for k in (0, 1)
    ]
    found = pool([read_outcomes(part) for part in half])
    for name in ("video_ids", "labels", "groups", "label_rank", "confidence", "padded"):
        np.testing.assert_array_equal(getattr(found, name), getattr(whole, name))
    with pytest.raises(ConfigError, match="the same video"):
        pool([whole, found])
    other = make_evaluation(tmp_path / "x", logits[:, :2], LABELS, num_seeds=1)
    with pytest.raises(ConfigError, match="same methods"):
        pool([whole, read_outcomes(other)])


def test_rows_of_an_older_release_say_nothing_of_short_videos(tmp_path):
    evaluation = make_evaluation(tmp_path, make_logits(7), LABELS)
    for shard in evaluation.shards():
        evaluation.commit(shard, evaluation.read_shard(shard).drop_columns(["padded"]))
    assert read_outcomes(evaluation).padded.tolist() == [False] * 7


def test_nothing_committed_is_an_error(tmp_path):
    evaluation = make_evaluation(tmp_path, make_logits(7), LABELS, shards=[])
    with pytest.raises(StoreError, match="no committed results"):
        read_outcomes(evaluation)


@pytest.mark.parametrize("ratio", [0.42, 1.0, float("nan")])
def test_a_class_analysis_of_what_was_not_evaluated_is_refused_and_not_missing(tmp_path, ratio):
    evaluation = make_evaluation(tmp_path, make_logits(7), LABELS)
    with pytest.raises(ConfigError, match=r"class ratio .* was not evaluated; .* keep ratios 0.5$"):
        summarise(evaluation, class_ratio=ratio)
    assert {trend.keep_ratio for trend in summarise(evaluation).classes} == {0.5}
