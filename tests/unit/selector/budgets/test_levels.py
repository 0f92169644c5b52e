"""A selector's fixed budgets as levels, and the random mixture of two of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from selector.budgets.levels import Levels, SecondOpinion, levels_of
from selector.evaluation.results import read_outcomes
from tests.evaluations import make_evaluation

RIGHT = np.array([[0, 1, 1], [1, 1, 1], [0, 0, 1], [0, 1, 0]])


def make_levels(right=RIGHT, **changes) -> Levels:
    """Costs as `tests.evaluations.make_info` has them; keep ratios 0.3, 0.5 and 1."""
    fields = {
        "method": "lite",
        "keep_ratios": (0.3, 0.5, 1.0),
        "num_kept": np.array([3, 5, 10]),
        "gmacs": np.array([4.0, 6.0, 10.0]),
        "gmacs_blocks": np.array([2.5, 4.5, 9.5]),
        "gmacs_embed": 0.5,
        "label_rank": np.where(right, 0, 7),
        "confidence": np.full(np.shape(right), 0.5),
        "mass": np.full(np.shape(right), 0.5),
    }
    return Levels(**(fields | changes))


def test_a_mixed_line_takes_every_row_from_its_own_level():
    levels = make_levels(np.array([[1, 0], [1, 0], [0, 1], [0, 1]])[:, [0, 1, 1]])
    given, costs = np.array([0, 0, 1, 0]), np.array([4.0, 4.0, 6.0, 4.0])
    line = levels.mixed("lite++", 0.5, given, costs)
    assert line.top1[:, 0].tolist() == line.top5[:, 0].tolist() == [1, 1, 1, 0]
    assert (line.num_kept, line.gmacs, line.gmacs_backbone) == (3.5, 4.5, 3.5)


def test_the_fifth_place_is_among_five_and_the_sixth_is_not():
    levels = make_levels(label_rank=np.array([[4, 0, 0], [5, 0, 0], [0, 4, 0], [0, 5, 0]]))
    line = levels.mixed("lite++", 0.5, np.array([0, 0, 1, 1]), np.full(4, 5.0))
    assert line.top5[:, 0].tolist() == [1, 0, 1, 0]
    assert line.top5.dtype == np.float64
    mixture = levels.random_mixture(0.5, np.full(4, 4.5))
    assert mixture.top5[:, 0].tolist() == pytest.approx([1, 0.25, 1, 0.75])
    assert (mixture.method, mixture.keep_ratio) == ("random mixture", 0.5)


def test_beyond_the_ends_the_mixture_does_not_follow_the_cost():
    """Costs that differ, with a mean below the cheapest and at it: it is the cheapest level."""
    for costs in ([1.0, 2.0, 3.0, 4.0], [3.0, 5.0, 3.0, 5.0]):
        line = make_levels().random_mixture(0.5, np.array(costs))
        assert line.top1[:, 0].tolist() == [0, 1, 0, 0]
    line = make_levels().random_mixture(0.5, np.array([9.0, 13.0, 9.0, 13.0]))
    assert line.top1[:, 0].tolist() == [1, 1, 1, 0]


@pytest.mark.parametrize(
    ("gmacs", "top1", "cost", "tokens"),
    [
        (4.0, [0, 1, 0, 0], 4.0, 3),
        (4.5, [0.25, 1, 0, 0.25], 4.5, 3.5),
        (6.0, [1, 1, 0, 1], 6.0, 5),
        (9.0, [1, 1, 0.75, 0.25], 9.0, 8.75),
        (3.0, [0, 1, 0, 0], 4.0, 3),
        (12.0, [1, 1, 1, 0], 10.0, 10),
    ],
)
def test_the_mixture_lies_on_the_line_between_the_two_neighbours(gmacs, top1, cost, tokens):
    line = make_levels().random_mixture(0.5, np.full(4, gmacs))
    assert line.top1[:, 0].tolist() == pytest.approx(top1)
    assert (line.gmacs, line.num_kept) == pytest.approx((cost, tokens))
    assert line.gmacs_backbone == pytest.approx(np.interp(cost, [4, 6, 10], [3, 5, 10]))


def test_a_selector_so_dear_that_all_tokens_are_cheaper_does_not_confuse_the_mixture():
    levels = make_levels(gmacs=np.array([4.0, 12.0, 10.0]))
    line = levels.random_mixture(0.5, np.full(4, 11.0))
    assert line.top1[:, 0].tolist() == [1, 1, 0.5, 0.5]
    line = levels.random_mixture(0.5, np.full(4, 7.0))
    assert line.top1[:, 0].tolist() == [0.5, 1, 0.5, 0]


def test_the_mixture_of_a_resample_follows_the_cost_of_the_resample():
    """To first order its own mean under weights is the line at the weighted mean cost."""
    levels = make_levels()
    costs = np.array([4.0, 4.0, 6.0, 4.0])
    values = levels.random_mixture(0.5, costs).top1[:, 0]
    assert values.mean() == pytest.approx(np.interp(4.5, [4, 6], [0.25, 0.75]))
    nudge = 1e-6 * np.array([-1, 2, 3, -4])
    weights = 0.25 + nudge
    accuracy = weights @ levels.is_right
    exact = np.interp(weights @ costs, levels.gmacs, accuracy)
    assert weights @ values - exact == pytest.approx(0, abs=1e-10)
    # Without the cost's own part the difference would be of the nudge's order.
    assert abs(nudge @ costs * (0.75 - 0.25) / 2) > 1e-7


def test_levels_hold_their_own_selectors_rows_and_the_full_model_last(tmp_path):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(6, 6, 4))  # full, random, lite at .5 and .3, lite[x] at .5 and .3
    mass = rng.random((6, 6))
    evaluation = make_evaluation(
        tmp_path,
        np.delete(logits, 1, axis=1),
        [0, 1, 2, 3, 0, 1],
        mass=np.delete(mass, 1, axis=1),
        methods=("lite", "lite[x]"),
        keep_ratios=(1.0, 0.5, 0.3),
        selector_digests={"lite": "1", "lite[x]": "2"},
    )
    outcomes = read_outcomes(evaluation)
    second = levels_of(outcomes, evaluation.info, "lite[x]")
    assert second.method == "lite[x]"
    assert second.keep_ratios == (0.3, 0.5, 1.0)
    assert second.gmacs.tolist() == [4, 6, 10]
    assert second.gmacs_blocks.tolist() == [2.5, 4.5, 9.5]
    assert np.array_equal(second.label_rank, outcomes.label_rank[:, [4, 3, 0]])
    np.testing.assert_allclose(second.mass[:, :2], mass[:, [5, 4]], rtol=1e-6)
    only = levels_of(read_outcomes(evaluation, ["lite"]), evaluation.info, "lite[x]")
    assert np.array_equal(only.label_rank, second.label_rank)


def test_an_adaptive_budget_runs_the_selector_also_where_all_tokens_stay():
    """A fixed budget of all tokens needs none: embedding 0.5 and blocks 9.5 are its 10."""
    assert make_levels().gmacs_ranked.tolist() == [4, 6, 11]


def test_some_rows_of_the_levels_are_those_rows_of_everything():
    opinion = SecondOpinion(np.array([0.1, 0.2, 0.3, 0.4]), 3.0)
    levels = make_levels(
        confidence=np.arange(12).reshape(4, 3), mass=-np.arange(12.0).reshape(4, 3)
    )
    found = replace(levels, opinions={"hf:x": opinion}).of(np.array([False, True, False, True]))
    assert np.array_equal(found.is_right, RIGHT[[1, 3]])
    assert found.confidence.tolist() == [[3, 4, 5], [9, 10, 11]]
    assert found.mass.tolist() == [[-3, -4, -5], [-9, -10, -11]]
    assert found.opinions["hf:x"].confidence.tolist() == [0.2, 0.4]
    assert found.opinions["hf:x"].gmacs == 3
    assert found.gmacs.tolist() == [4, 6, 10]
