"""Adaptive budgets on a ladder: who gets which rung, and what it costs."""

from __future__ import annotations

import numpy as np
import pytest

from selector.budgets.candidates import CASCADE, MASS, PAPER, Mass, Thresholds, rules
from selector.budgets.pick import Goal
from tests.unit.selector.budgets.test_levels import make_ladder

NO_LOSS = Goal(max_loss=0.0)


def make_tall():
    """Rungs 0.1, 0.3, 0.5 and 1 of two videos; costs 2, 4, 6 and 10."""
    return make_ladder(
        np.ones((2, 4)),
        keep_ratios=(0.1, 0.3, 0.5, 1.0),
        num_kept=np.array([1, 3, 5, 10]),
        gmacs=np.array([2.0, 4.0, 6.0, 10.0]),
        gmacs_blocks=np.array([0.5, 2.5, 4.5, 9.5]),
    )


def test_the_papers_rule_costs_a_confidence_and_then_small_or_base():
    rule = Thresholds(base=2, small=1, asked=0)
    assert rule.name == PAPER
    assert rule.gmacs(make_tall(), np.array([1, 2])).tolist() == [0.5 + 4, 0.5 + 6]


def test_a_cascade_costs_the_small_budget_and_the_bases_blocks_for_those_in_between():
    rule = Thresholds(base=2, small=1, asked=1)
    assert rule.name == CASCADE
    # Embedding 0.5 and selector 1 once; blocks 2.5 for the small budget and 4.5 for the base.
    small, between = 0.5 + 1 + 2.5, 0.5 + 1 + 2.5 + 4.5
    assert rule.gmacs(make_tall(), np.array([1, 2])).tolist() == [small, between]


@pytest.mark.parametrize(
    ("rule", "asked"),
    [(Thresholds(base=1, small=0, asked=0), 0), (Thresholds(base=2, small=1, asked=0), 0)],
)
def test_confidences_outside_the_thresholds_get_the_small_budget(rule, asked):
    confidence = np.full((5, 4), np.nan)
    confidence[:, asked] = [0.1, 0.2, 0.5, 0.8, 0.9]
    ladder = make_ladder(np.ones((5, 4)), confidence=confidence, keep_ratios=(0.1, 0.3, 0.5, 1.0))
    small, base = rule.small, rule.base
    assert rule.rungs(ladder, (0.2, 0.8)).tolist() == [small, base, base, base, small]


def test_what_is_picked_keeps_every_video_that_the_base_has_right():
    """Wrong at the small budget exactly where its confidence is middling."""
    confidence = np.tile(np.linspace(0, 1, 100)[:, None], (1, 3))
    middling = (confidence[:, 0] > 0.3) & (confidence[:, 0] < 0.6)
    right = np.stack([~middling, np.ones(100), np.ones(100)], axis=1)
    ladder = make_ladder(right, confidence=confidence)
    rule = Thresholds(base=1, small=0, asked=0)
    rungs = rule.rungs(ladder, rule.pick(ladder, NO_LOSS))
    assert (rungs[middling] == 1).all()
    assert (rungs[~middling] == 0).mean() > 0.85


MASS_HELD = np.array([[0.6, 0.9, np.nan], [0.3, 0.5, np.nan], [0.2, 0.4, np.nan]])


@pytest.mark.parametrize(
    ("share", "rungs"),
    [(0.2, [0, 0, 0]), (0.3, [0, 0, 1]), (0.6, [0, 1, 1]), (0.61, [1, 1, 1]), (1, [1, 1, 1])],
)
def test_the_mass_budget_takes_the_first_rung_that_holds_the_share(share, rungs):
    """And never the full model, which is no rung of a mass budget."""
    rule, ladder = Mass(base=1), make_ladder(np.ones((3, 3)), mass=MASS_HELD)
    assert rule.rungs(ladder, (share,)).tolist() == rungs
    assert rule.gmacs(ladder, np.array(rungs)).tolist() == [[4, 6][rung] for rung in rungs]


def test_the_mass_is_the_cheapest_that_keeps_every_video_right():
    right = np.array([[1, 1, 1], [1, 1, 1], [0, 1, 1]])  # only the last needs the base
    ladder = make_ladder(right, mass=MASS_HELD)
    rule = Mass(base=1)
    (share,) = rule.pick(ladder, NO_LOSS)
    assert share == pytest.approx(0.21)
    assert rule.rungs(ladder, (share,)).tolist() == [0, 0, 1]


def kinds(*ratios):
    count = len(ratios)
    ladder = make_ladder(
        np.ones((1, count)),
        keep_ratios=ratios,
        gmacs=np.arange(count),
        gmacs_blocks=np.arange(count),
        num_kept=np.arange(count),
    )
    return [(rule.name, ratios[rule.base]) for rule in rules(ladder)]


def test_every_rule_is_offered_from_every_base_that_has_what_it_needs():
    assert kinds(0.1, 0.2, 0.3, 0.5, 1.0) == [
        *((PAPER, base) for base in (0.5, 0.3)),
        *((CASCADE, base) for base in (0.5, 0.3)),
        *((MASS, base) for base in (0.5, 0.3, 0.2)),
    ]
    # A cascade needs nothing below the small budget; without that there is only the mass.
    assert kinds(0.3, 0.5, 1.0) == [(CASCADE, 0.5), (MASS, 0.5)]
    assert kinds(0.1, 0.4, 0.5, 1.0) == [(MASS, 0.5), (MASS, 0.4)]
    assert kinds(0.5, 1.0) == []
