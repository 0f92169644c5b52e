"""Adaptive budgets over levels: who gets which level, and what it costs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from selector.budgets.candidates import (
    CASCADE,
    MASS,
    MASSES,
    PAPER,
    Mass,
    Thresholds,
    candidates,
)
from selector.budgets.clip_budget import MassBudget, ThresholdBudget
from selector.budgets.levels import SecondOpinion
from selector.budgets.pick import Goal
from tests.unit.selector.budgets.test_levels import make_levels

NO_LOSS = Goal(max_loss=0.0, certainty=None)


def make_tall():
    """Keep ratios 0.1, 0.3, 0.5 and 1 of two videos; costs 2, 4, 6 and 10."""
    return make_levels(
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
    levels = make_levels(np.ones((5, 4)), confidence=confidence, keep_ratios=(0.1, 0.3, 0.5, 1.0))
    small, base = rule.small, rule.base
    assert rule.give(levels, (0.2, 0.8)).tolist() == [small, base, base, base, small]


def test_what_is_picked_keeps_every_video_that_the_base_has_right():
    """Wrong at the small budget exactly where its confidence is middling."""
    confidence = np.tile(np.linspace(0, 1, 100)[:, None], (1, 3))
    middling = (confidence[:, 0] > 0.3) & (confidence[:, 0] < 0.6)
    right = np.stack([~middling, np.ones(100), np.ones(100)], axis=1)
    levels = make_levels(right, confidence=confidence)
    rule = Thresholds(base=1, small=0, asked=0)
    given = rule.give(levels, rule.pick(levels, NO_LOSS)[0])
    assert (given[middling] == 1).all()
    assert (given[~middling] == 0).mean() > 0.85


MASS_HELD = np.array([[0.6, 0.9, np.nan], [0.3, 0.5, np.nan], [0.2, 0.4, np.nan]])


@pytest.mark.parametrize(
    ("share", "given"),
    [(0.2, [0, 0, 0]), (0.3, [0, 0, 1]), (0.6, [0, 1, 1]), (0.61, [1, 1, 1]), (1, [1, 1, 1])],
)
def test_the_mass_budget_takes_the_first_level_that_holds_the_share(share, given):
    """And never the full model, which is no level of a mass budget."""
    rule, levels = Mass(base=1), make_levels(np.ones((3, 3)), mass=MASS_HELD)
    assert rule.give(levels, (share,)).tolist() == given
    assert rule.gmacs(levels, np.array(given)).tolist() == [[4, 6][level] for level in given]


def test_the_mass_is_the_cheapest_that_keeps_every_video_right():
    right = np.array([[1, 1, 1], [1, 1, 1], [0, 1, 1]])  # only the last needs the base
    levels = make_levels(right, mass=MASS_HELD)
    rule = Mass(base=1)
    (share,), outcome = rule.pick(levels, NO_LOSS)
    assert share == pytest.approx(0.21)
    assert rule.give(levels, (share,)).tolist() == [0, 0, 1]
    assert (outcome.gmacs, outcome.base_gmacs) == (pytest.approx(14 / 3), 6)
    assert rule.budget(levels, (share,)) == MassBudget(mass=share, levels=(0.3, 0.5))


def test_the_shares_that_are_tried_are_the_hundredths_between_0_and_1():
    """A share of 1 is held by nothing but a rounding; it would be a fixed budget."""
    assert MASSES.tolist() == pytest.approx([i / 100 for i in range(1, 100)], abs=1e-15)


def test_a_second_opinion_is_paid_by_all_and_answers_nothing():
    confidence = np.array([0.1, 0.5, 0.9])
    levels = replace(
        make_levels(np.ones((3, 3)), confidence=np.full((3, 3), np.nan)),
        opinions={"hf:x": SecondOpinion(confidence, 2.0)},
    )
    rule = Thresholds(base=1, small=0, asked="hf:x")
    assert rule.name == PAPER
    given = rule.give(levels, (0.2, 0.8))
    assert given.tolist() == [0, 1, 0]
    assert rule.gmacs(levels, given).tolist() == [2 + 4, 2 + 6, 2 + 4]
    _, outcome = rule.pick(levels, NO_LOSS)
    assert (outcome.gmacs, outcome.base_gmacs) == (2 + 4, 6)


def test_all_tokens_as_the_base_cost_the_selector_too_and_are_compared_with_a_model_without():
    confidence = np.full((3, 3), np.nan)
    confidence[:, 0] = [0.1, 0.5, 0.9]
    levels = make_levels(np.ones((3, 3)), confidence=confidence)
    rule = Thresholds(base=2, small=1, asked=0)
    assert rule.gmacs(levels, np.array([1, 2, 2])).tolist() == [2.5 + 6, 2.5 + 11, 2.5 + 11]
    (alpha, beta), outcome = rule.pick(levels, NO_LOSS)
    assert (outcome.gmacs, outcome.base_gmacs) == (2.5 + 6, 10)
    assert rule.budget(levels, (alpha, beta)) == ThresholdBudget(
        base_ratio=1.0, small_ratio=0.5, alpha=alpha, beta=beta
    )


def kinds(*ratios):
    count = len(ratios)
    levels = make_levels(
        np.ones((1, count)),
        keep_ratios=ratios,
        gmacs=np.arange(count),
        gmacs_blocks=np.arange(count),
        num_kept=np.arange(count),
    )
    return [(rule.name, ratios[rule.base]) for rule in candidates(levels)]


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
