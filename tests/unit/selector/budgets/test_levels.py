"""A selector's fixed budgets as rungs, and the coin between two of them."""

from __future__ import annotations

import numpy as np
import pytest

from selector.budgets.levels import Ladder, ladders
from selector.evaluation.results import read_outcomes
from tests.evaluations import make_evaluation

RIGHT = np.array([[0, 1, 1], [1, 1, 1], [0, 0, 1], [0, 1, 0]])


def make_ladder(right=RIGHT, **changes) -> Ladder:
    """Costs as `tests.evaluations.make_info` has them; rungs 0.3, 0.5 and 1."""
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
    return Ladder(**(fields | changes))


def test_a_mixed_line_takes_every_video_from_its_own_rung():
    ladder = make_ladder(np.array([[1, 0], [1, 0], [0, 1], [0, 1]])[:, [0, 1, 1]])
    rungs, costs = np.array([0, 0, 1, 0]), np.array([4.0, 4.0, 6.0, 4.0])
    line = ladder.mixed("lite++", 0.5, rungs, costs)
    assert line.top1[:, 0].tolist() == line.top5[:, 0].tolist() == [1, 1, 1, 0]
    assert (line.num_kept, line.gmacs, line.gmacs_backbone) == (3.5, 4.5, 3.5)


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
def test_the_coin_lies_on_the_line_between_the_two_neighbours(gmacs, top1, cost, tokens):
    line = make_ladder().coin(0.5, np.full(4, gmacs))
    assert line.top1[:, 0].tolist() == pytest.approx(top1)
    assert (line.gmacs, line.num_kept) == pytest.approx((cost, tokens))
    assert line.gmacs_backbone == pytest.approx(np.interp(cost, [4, 6, 10], [3, 5, 10]))


def test_a_selector_so_dear_that_all_tokens_are_cheaper_does_not_confuse_the_coin():
    ladder = make_ladder(gmacs=np.array([4.0, 12.0, 10.0]))
    line = ladder.coin(0.5, np.full(4, 11.0))
    assert line.top1[:, 0].tolist() == [1, 1, 0.5, 0.5]
    line = ladder.coin(0.5, np.full(4, 7.0))
    assert line.top1[:, 0].tolist() == [0.5, 1, 0.5, 0]


def test_the_coin_of_a_resample_follows_the_cost_of_the_resample():
    """To first order: the coin's own mean under weights is the line at the weighted mean cost."""
    ladder = make_ladder()
    costs = np.array([4.0, 4.0, 6.0, 4.0])
    values = ladder.coin(0.5, costs).top1[:, 0]
    assert values.mean() == pytest.approx(np.interp(4.5, [4, 6], [0.25, 0.75]))
    nudge = 1e-6 * np.array([-1, 2, 3, -4])
    weights = 0.25 + nudge
    accuracy = weights @ ladder.is_right
    exact = np.interp(weights @ costs, ladder.gmacs, accuracy)
    assert weights @ values - exact == pytest.approx(0, abs=1e-10)
    # Without the cost's own part the difference would be of the nudge's order.
    assert abs(nudge @ costs * (0.75 - 0.25) / 2) > 1e-7


def test_a_ladder_holds_its_own_selectors_rows_and_the_full_model_last(tmp_path):
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
    first, second = ladders(outcomes, evaluation.info)
    assert (first.method, second.method) == ("lite", "lite[x]")
    assert second.keep_ratios == (0.3, 0.5, 1.0)
    assert second.gmacs.tolist() == [4, 6, 10]
    assert second.gmacs_blocks.tolist() == [2.5, 4.5, 9.5]
    assert np.array_equal(second.label_rank, outcomes.label_rank[:, [4, 3, 0]])
    np.testing.assert_allclose(second.mass[:, :2], mass[:, [5, 4]], rtol=1e-6)
    (only,) = ladders(read_outcomes(evaluation, ["lite"]), evaluation.info)
    assert np.array_equal(only.label_rank, second.label_rank)
