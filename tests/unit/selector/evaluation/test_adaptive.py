"""LITE++ from stored rows."""

from __future__ import annotations

import numpy as np
import pytest

from selector.evaluation.adaptive import adaptive_results
from selector.evaluation.outcomes import read_outcomes
from selector.evaluation.summary import summarise
from selector.evaluation.text import format_summary
from selector.split import halves
from tests.evaluations import make_evaluation

NUM_VIDEOS = 400
RATIOS = (1.0, 0.5, 0.3, 0.1)


def make_lite(folder, seed=0, ratios=RATIOS):
    """Right at 0.5 always; at 0.3 only where the view of 10 % is sure, or hopelessly unsure."""
    rng = np.random.default_rng(seed)
    sure = rng.random(NUM_VIDEOS)
    easy = (sure > 0.6) | (sure < 0.1)
    logits = np.zeros((NUM_VIDEOS, len(ratios), 3))
    logits[:, 0, 0] = logits[:, 1, 0] = 5  # the label is class 0
    logits[:, 2, 0] = np.where(easy, 5, -5)
    logits[:, -1, 0] = 3 * sure
    return make_evaluation(
        folder,
        logits,
        [0] * NUM_VIDEOS,
        methods=("lite",),
        keep_ratios=ratios,
        selector_digests={"lite": "s" * 64},
        shard_size=64,
    ), easy


def test_videos_that_do_not_need_the_base_get_the_small_budget(tmp_path):
    evaluation, easy = make_lite(tmp_path)
    (result,) = adaptive_results(read_outcomes(evaluation), evaluation.info, max_loss=0.0)
    assert (result.entry.keep_ratio, result.small_ratio, result.confidence_ratio) == (0.5, 0.3, 0.1)
    assert result.share_small == pytest.approx(easy.mean(), abs=0.03)
    assert result.entry.top1.mean() > 0.98
    assert len(result.thresholds) == 2
    # Costs of `make_info`: kept tokens plus one for the selector; the confidence adds the blocks.
    small, base, confidence = 3 + 1, 5 + 1, 1 - 0.5
    expected = result.share_small * small + (1 - result.share_small) * base + confidence
    assert result.entry.gmacs == pytest.approx(expected)
    assert result.entry.num_kept == pytest.approx(expected - confidence - 1)


def test_a_budget_for_loss_is_spent(tmp_path):
    evaluation, _ = make_lite(tmp_path)
    outcomes = read_outcomes(evaluation)
    strict, loose = (
        adaptive_results(outcomes, evaluation.info, loss)[0].share_small for loss in (0.0, 0.2)
    )
    assert loose > strict + 0.1


def test_no_video_sets_the_thresholds_it_is_judged_by(tmp_path):
    evaluation, _ = make_lite(tmp_path)
    outcomes = read_outcomes(evaluation)
    (before,) = adaptive_results(outcomes, evaluation.info, max_loss=0.0)
    first = ~halves(outcomes.video_ids)
    outcomes.label_rank[first, 2] = 1  # the small budget is now wrong on all of one half
    (after,) = adaptive_results(outcomes, evaluation.info, max_loss=0.0)
    assert after.thresholds[0] == before.thresholds[0]  # what the first half is judged by
    assert after.thresholds[1] != before.thresholds[1]
    small = (after.entry.top1[:, 0] == 0)[first].mean()
    assert small == pytest.approx(before.share_small, abs=0.1)


@pytest.mark.parametrize("ratios", [(1.0, 0.5, 0.3, 0.3 - 1e-3), (1.0, 0.5, 0.4, 0.1)])
def test_a_base_needs_its_own_small_ratio_and_a_smaller_one(tmp_path, ratios):
    evaluation, _ = make_lite(tmp_path, ratios=ratios)
    bases = [
        result.entry.keep_ratio
        for result in adaptive_results(read_outcomes(evaluation), evaluation.info)
    ]
    assert bases == ([0.5] if 0.3 in ratios else [])


def test_without_lite_there_is_no_lite_plus_plus(tmp_path):
    logits = np.random.default_rng(0).normal(size=(6, 3, 3))
    evaluation = make_evaluation(tmp_path, logits, [0, 1, 2, 0, 1, 2])
    assert adaptive_results(read_outcomes(evaluation), evaluation.info) == []


def test_the_summary_has_its_rows_and_its_loss_against_the_base(tmp_path):
    evaluation, _ = make_lite(tmp_path)
    summary = summarise(evaluation, num_draws=100)
    assert summary.table[-1].method == "lite++"
    (pair,) = [pair for pair in summary.paired if pair.against == "lite"]
    assert pair.difference == pytest.approx(summary.table[-1].top1 - 1)
    assert "from 0.5: " in format_summary(summary)
