"""Adaptive budgets from stored rows, judged on videos that did not set them."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from pipeline.cli.evaluate_report import echo_summary
from pipeline.errors import ConfigError
from selector.budgets.adaptive import AdaptiveGoal, adaptive_results
from selector.evaluation.report.summary import summarise
from selector.evaluation.results import read_outcomes
from selector.training.split import halves
from tests.evaluations import make_evaluation, make_lite_evaluation

STRICT = AdaptiveGoal(max_loss=0.0)


def results_of(evaluation, goal=STRICT):
    results, out_of_reach = adaptive_results(read_outcomes(evaluation), evaluation.info, goal)
    assert out_of_reach == []
    return {(result.entry.method, result.entry.keep_ratio): result for result in results}


def test_videos_that_do_not_need_the_base_get_the_small_budget(tmp_path):
    evaluation, easy = make_lite_evaluation(tmp_path)
    result = results_of(evaluation)["lite++", 0.5]
    assert (
        result.setting.selector,
        result.setting.small_ratio,
        result.setting.confidence_ratio,
    ) == ("lite", 0.3, 0.1)
    assert result.setting.shares[0.3] == pytest.approx(easy.mean(), abs=0.05)
    assert result.entry.top1.mean() > 0.98
    assert len(result.setting.picked) == 2
    # Costs of `make_info`: kept tokens plus one for the selector; the confidence adds the blocks.
    expected = result.setting.shares[0.3] * 4 + result.setting.shares[0.5] * 6 + (1 - 0.5)
    assert result.entry.gmacs == pytest.approx(expected)
    assert result.entry.num_kept == pytest.approx(expected - 0.5 - 1)
    assert (result.mixture.gmacs, result.mixture.keep_ratio) == (pytest.approx(expected), 0.5)
    assert result.mixture.top1.mean() == pytest.approx(
        np.interp(expected, [4, 6], [easy.mean(), 1])
    )


def test_the_mass_budget_is_simulated_from_the_mass_that_was_kept(tmp_path):
    evaluation, easy = make_lite_evaluation(tmp_path)
    result = results_of(evaluation)["lite mass", 0.5]
    assert result.setting.shares == pytest.approx({0.3: easy.mean(), 0.5: 1 - easy.mean()})
    assert result.entry.top1.mean() == 1
    assert result.entry.gmacs == pytest.approx(4 * easy.mean() + 6 * (1 - easy.mean()))
    assert all(0.41 * 0.8 < mass <= 0.9 * 0.8 for (mass,) in result.setting.picked)


def test_a_cascade_asks_the_small_budget_itself(tmp_path):
    evaluation, easy = make_lite_evaluation(tmp_path)
    result = results_of(evaluation)["lite++ cascade", 0.5]
    assert (result.setting.small_ratio, result.setting.confidence_ratio) == (0.3, 0.3)
    # Where it is wrong it is about half sure, and where it is right wholly.
    assert result.setting.shares == pytest.approx(
        {0.3: easy.mean(), 0.5: 1 - easy.mean()}, abs=0.05
    )
    assert result.entry.top1.mean() == 1
    assert result.entry.gmacs == pytest.approx(4 + result.setting.shares[0.5] * 4.5)


def test_a_budget_for_loss_is_spent(tmp_path):
    evaluation, _ = make_lite_evaluation(tmp_path)
    strict, loose = (
        results_of(evaluation, AdaptiveGoal(max_loss=loss))["lite++", 0.5].setting.shares[0.3]
        for loss in (0.0, 0.2)
    )
    assert loose > strict + 0.1


def test_a_share_of_the_bases_cost_is_kept_or_said_to_be_out_of_reach(tmp_path):
    evaluation, _ = make_lite_evaluation(tmp_path)
    outcomes = read_outcomes(evaluation)
    results, out_of_reach = adaptive_results(
        outcomes, evaluation.info, AdaptiveGoal(gmacs_share=0.7)
    )
    assert [r.entry.method for r in results if r.entry.keep_ratio == 0.5] == [
        "lite++ cascade",
        "lite mass",
    ]
    assert all(r.entry.gmacs < 0.75 * 6 for r in results if r.entry.keep_ratio == 0.5)
    assert out_of_reach[0].startswith("lite++ from 0.5: 4.2 GFLOPs is below 4.5, the cheapest")


@pytest.mark.parametrize("goal", [{}, {"max_loss": 0.1, "gmacs_share": 0.5}, {"gmacs_share": 0.0}])
def test_a_goal_that_means_nothing_is_refused(tmp_path, goal):
    evaluation, _ = make_lite_evaluation(tmp_path)
    with pytest.raises(ConfigError, match="target cost"):
        summarise(evaluation, goal=AdaptiveGoal(**goal))


def test_no_video_sets_the_thresholds_it_is_judged_by(tmp_path):
    evaluation, _ = make_lite_evaluation(tmp_path)
    outcomes = read_outcomes(evaluation)

    def picked():
        (result, *_), _ = adaptive_results(outcomes, evaluation.info, STRICT)
        return result.setting.picked

    before = picked()
    outcomes.label_rank[~halves(outcomes.video_ids), 2] = 1  # 0.3 is wrong on all of one half
    after = picked()
    assert after[0] == before[0]  # what the first half is judged by
    assert after[1] != before[1]


def test_no_group_sets_the_thresholds_it_is_judged_by(tmp_path):
    """Neighbours are of one group, so that the videos' own halves cross the groups'."""
    evaluation, _ = make_lite_evaluation(tmp_path)
    groups = np.array([f"group {number // 2}" for number in range(400)], object)
    outcomes = replace(read_outcomes(evaluation), groups=groups)
    half = halves(groups)
    assert (half != halves(outcomes.video_ids)).any()

    def picked():
        (result, *_), _ = adaptive_results(outcomes, evaluation.info, STRICT)
        return result.setting.picked

    before = picked()
    outcomes.label_rank[~half, 2] = 1
    after = picked()
    assert after[0] == before[0]
    assert after[1] != before[1]


def test_one_video_has_no_two_halves(tmp_path):
    evaluation, _ = make_lite_evaluation(tmp_path, num_videos=1)
    assert results_of(evaluation) == {}


def test_a_selector_without_outcomes_leaves_the_others_theirs(tmp_path):
    evaluation, _ = make_lite_evaluation(tmp_path, ("lite", "lite[x]"))
    outcomes = replace(read_outcomes(evaluation), without=frozenset({"lite"}))
    results, _ = adaptive_results(outcomes, evaluation.info, STRICT)
    assert {result.setting.selector for result in results} == {"lite[x]"}


def test_without_lite_nothing_adapts(tmp_path):
    logits = np.random.default_rng(0).normal(size=(6, 3, 3))
    evaluation = make_evaluation(tmp_path, logits, [0, 1, 2, 0, 1, 2])
    assert results_of(evaluation) == {}


def test_the_summary_compares_every_selector_with_its_own_base_and_mixture(tmp_path, capsys):
    evaluation, easy = make_lite_evaluation(tmp_path, ("lite", "lite[x]"))
    summary = summarise(evaluation, num_draws=100)
    lines = {(row.method, row.keep_ratio): row for row in summary.table}
    pairs = {(p.method, p.keep_ratio, p.against): p for p in summary.paired}
    for kind in ("++", "++ cascade", " mass"):
        row = lines[f"lite[x]{kind}", 0.5]
        to_base = pairs[row.method, 0.5, "lite[x]"]
        assert to_base.difference == pytest.approx(row.top1 - lines["lite[x]", 0.5].top1)
        mixture = np.interp(row.gmacs, [4, 6], [lines["lite", r].top1 for r in (0.3, 0.5)])
        to_mixture = pairs[row.method, 0.5, "random mixture"]
        assert to_mixture.difference == pytest.approx(row.top1 - mixture)
        assert to_mixture.low <= to_mixture.difference <= to_mixture.high
    assert pairs["lite[x]", 0.5, "lite"].difference == 0  # the same rows twice
    assert [trend.method for trend in summary.classes] == []

    echo_summary(summary)
    text = capsys.readouterr().out
    # The same on all 400 videos, so that Wilson's bound speaks: 3.84 / (400 + 3.84) is 0.95 %.
    assert "  lite[x]   0.3  +0.0 [-1.0, +1.0]" in text
    block = text[text.index("lite[x] mass: ") :].splitlines()
    share = easy.mean()
    assert block[1].split()[:4] == ["0.5", "4", f"{6 - 2 * share:.4g}", f"{100 * share:.0f}"]
    content = json.loads(json.dumps(summary.to_dict()))
    assert content["goal"] == {"max_loss": 0.006, "gmacs_share": None}
    assert len(content["adaptive"]) == 2 * (1 + 1 + 2)
