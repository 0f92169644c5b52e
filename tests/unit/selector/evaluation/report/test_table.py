"""The table: means over videos and seeds, differences on the same videos."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.cli.evaluate_report import echo_summary
from selector.evaluation.report.summary import summarise
from selector.evaluation.report.table import entries, make_table
from selector.evaluation.results import read_outcomes
from tests.evaluations import make_evaluation

LABELS = [0] * 8


def right_or_wrong(*columns):
    """Logits whose top-1 is right where a column has 1; 8 videos, 6 classes."""
    logits = np.zeros((8, len(columns), 6))
    for column, marks in enumerate(columns):
        logits[:, column] = [[2, 1, 1, 1, 1, 1] if m == "1" else [0, 1, 1, 1, 1, 1] for m in marks]
    return logits


FULL = "11110000"
RANDOM_0, RANDOM_1 = "11100000", "11000011"
ORACLE = "11111100"
METHODS = ("random", "oracle[embeddings,fem]")


@pytest.fixture
def evaluation(tmp_path):
    logits = right_or_wrong(FULL, RANDOM_0, RANDOM_1, ORACLE)
    return make_evaluation(tmp_path, logits, LABELS, methods=METHODS)


def table_of(evaluation):
    outcomes = read_outcomes(evaluation)
    rates = [4.0, 1.0, 3.0, None]
    return make_table(entries(outcomes, evaluation.info, rates), num_draws=500)


def test_seeds_are_averaged_and_shown_one_by_one(evaluation):
    full, random, oracle = table_of(evaluation)
    assert (full.method, random.method, oracle.method) == ("full", *METHODS)
    assert full.top1 == 0.5
    assert random.top1 == pytest.approx(7 / 16)
    assert random.top1_per_seed == pytest.approx((3 / 8, 4 / 8))
    assert oracle.top1 == 0.75
    assert (random.num_kept, random.keep_ratio) == (5, 0.5)
    assert (full.clips_per_s, random.clips_per_s, oracle.clips_per_s) == (4, 2, None)
    assert (random.gmacs, oracle.gmacs, oracle.gmacs_backbone) == (5, None, 5)
    assert full.top5 == pytest.approx(0.5)  # wrong means last of six


def test_differences_are_on_the_same_videos(evaluation):
    full, _, oracle = table_of(evaluation)
    assert (full.difference, full.difference_low, full.difference_high) == (0, 0, 0)
    assert oracle.difference == 0.25
    # The oracle loses nowhere, so no resample puts it below; unpaired intervals overlap widely.
    assert oracle.difference_low >= 0
    assert oracle.top1_low < full.top1_high


def test_the_summary_is_json_and_text(evaluation, capsys):
    import json

    summary = summarise(evaluation, num_draws=100)
    content = json.loads(json.dumps(summary.to_dict()))
    assert content["num_videos"] == 8
    assert [row["method"] for row in content["table"]] == ["full", *METHODS]
    found = [(pair["method"], pair["against"], pair["difference"]) for pair in content["paired"]]
    assert found == [
        ("random", "full", -0.0625),
        (METHODS[1], "full", 0.25),
        (METHODS[1], "random", 0.3125),
    ]
    echo_summary(summary)
    text = capsys.readouterr().out
    assert "random (mean of 2 seeds)" in text
    assert "75.0 [" in text
    assert "UNFINISHED" not in text


def test_what_is_missing_or_failed_is_said(tmp_path, capsys):
    logits = right_or_wrong(FULL, RANDOM_0, RANDOM_1, ORACLE)
    evaluation = make_evaluation(
        tmp_path, logits, LABELS, methods=METHODS, failed=[(1, 0)], shards=[0]
    )
    echo_summary(summarise(evaluation, num_draws=100))
    text = capsys.readouterr().out
    assert "3 videos" in text.splitlines()[0]
    assert "left out: 1 videos" in text
    assert "UNFINISHED: 4 videos" in text


def test_outcomes_that_are_all_equal_are_not_certain(tmp_path, capsys):
    """Eight of eight right is 100 % [67.6, 100] by Wilson; no video differs from the full model."""
    evaluation = make_evaluation(
        tmp_path, right_or_wrong("11111111", "11111111"), LABELS, methods=("uniform",)
    )
    summary = summarise(evaluation, num_draws=100)
    full, uniform = summary.table
    assert (full.top1_low, full.top1_high) == pytest.approx((0.6756, 1), abs=1e-4)
    assert (full.difference_low, full.difference_high) == (0, 0)  # against itself
    assert (uniform.difference_low, uniform.difference_high) == pytest.approx(
        (-0.3244, 0.3244), abs=1e-4
    )
    echo_summary(summary)
    text = capsys.readouterr().out
    assert "FEW VIDEOS: intervals of 8 are rough" in text
    assert "100.0 [67.6, 100.0]" in text


def test_a_trend_over_few_videos_is_said_to_be_one(tmp_path, capsys):
    """Two videos a class; all three classes are drawn, or the resample does not count."""
    logits = np.zeros((6, 2, 3))
    labels = [0, 0, 1, 1, 2, 2]
    for video, (full, kept) in enumerate([(0, 0), (0, 0), (0, 1), (1, 1), (1, 2), (1, 2)]):
        logits[video, 0, full], logits[video, 1, kept] = 1, 1
    evaluation = make_evaluation(tmp_path, logits, labels, methods=("uniform",))
    echo_summary(summarise(evaluation, num_draws=100))
    text = capsys.readouterr().out
    assert "FEW VIDEOS: 2 a class; with fewer than 30 the intervals lie too high" in text
