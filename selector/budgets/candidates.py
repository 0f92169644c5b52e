"""The adaptive budgets that evaluated levels can be mixed to: whom each gives what, and the cost.

Axes: V rows, L levels, M shares of mass.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from selector.budgets.clip_budget import Budget, MassBudget, ThresholdBudget, small_ratio
from selector.budgets.levels import Floats, Ints, Levels
from selector.budgets.pick import Goal, Outcome, calibrate_mass, calibrate_thresholds

MASSES = np.arange(1, 100) / 100
"""Shares of predicted mass that are tried."""

Picked = tuple[float, ...]

PAPER, CASCADE, MASS = "++", "++ cascade", " mass"


class Candidate(Protocol):
    """One way of giving every row a level; `base` is the fixed budget that it replaces."""

    @property
    def name(self) -> str:
        """Written behind the selector's method."""

    @property
    def base(self) -> int:
        """The level that a loss is counted from."""

    def pick(self, levels: Levels, goal: Goal) -> tuple[Picked, Outcome]:
        """Its parameters, the best on these rows, and what they do there.

        Raises:
            ConfigError: nothing meets the goal.
        """

    def give(self, levels: Levels, picked: Picked) -> Ints:
        """The level that answers for each row, (V,)."""

    def gmacs(self, levels: Levels, given: Ints) -> Floats:
        """Cost of one view of each row on its level, with everything, (V,)."""

    def budget(self, levels: Levels, picked: Picked) -> Budget:
        """The same rule as a model follows it."""


class _Asked(NamedTuple):
    """What a threshold rule goes by."""

    confidence: Floats  # (V,)
    gmacs: float  # paid by every row
    small_known: float  # what of the small budget's cost is paid with that


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """The paper's LITE++: a small budget for confidences below alpha or above beta.

    The confidence is the backbone's on the best tokens of the level `asked`, or a second opinion of
    that name. With `asked` the small budget itself it is a cascade: the rows that stay small have
    their answer already, and only the others enter the blocks once more.
    """

    base: int
    small: int
    asked: int | str

    @property
    def name(self) -> str:
        """Written behind the selector's method."""
        return CASCADE if self.asked == self.small else PAPER

    def pick(self, levels: Levels, goal: Goal) -> tuple[Picked, Outcome]:
        """Alpha and beta, and what they do."""
        right, asked = levels.is_right, self._ask(levels)
        alpha, beta, outcome = calibrate_thresholds(
            asked.confidence,
            right[:, self.small],
            right[:, self.base],
            gmacs_small=float(levels.gmacs_ranked[self.small]) - asked.small_known,
            gmacs_base=float(levels.gmacs_ranked[self.base]),
            gmacs_confidence=asked.gmacs,
            gmacs_fixed=float(levels.gmacs[self.base]),
            goal=goal,
            views=levels.views,
        )
        return (alpha, beta), outcome

    def give(self, levels: Levels, picked: Picked) -> Ints:
        """The small one or the base, (V,)."""
        (alpha, beta), confidence = picked, self._ask(levels).confidence
        return np.where((confidence < alpha) | (confidence > beta), self.small, self.base)

    def gmacs(self, levels: Levels, given: Ints) -> Floats:
        """Embedding and ranking once, the confidence for all, the answer's blocks for each."""
        asked = self._ask(levels)
        small = levels.gmacs_ranked[self.small] - asked.small_known
        answers = np.where(given == self.small, small, levels.gmacs_ranked[self.base])
        return asked.gmacs + answers

    def budget(self, levels: Levels, picked: Picked) -> ThresholdBudget:
        """The same rule as a model follows it."""
        alpha, beta = picked
        return ThresholdBudget(
            base_ratio=levels.keep_ratios[self.base],
            small_ratio=levels.keep_ratios[self.small],
            alpha=alpha,
            beta=beta,
        )

    def _ask(self, levels: Levels) -> _Asked:
        if isinstance(self.asked, str):
            opinion = levels.opinions[self.asked]
            return _Asked(opinion.confidence, opinion.gmacs, 0.0)
        blocks = float(levels.gmacs_blocks[self.asked])
        known = blocks if self.asked == self.small else 0.0
        return _Asked(levels.confidence[:, self.asked], blocks, known)


@dataclass(frozen=True, kw_only=True)
class Mass:
    """The fewest tokens, rounded up to a level, that hold a share of the predicted scores.

    The full model is no level of it, as in `MassBudget`.
    """

    base: int

    @property
    def name(self) -> str:
        """Written behind the selector's method."""
        return MASS

    def pick(self, levels: Levels, goal: Goal) -> tuple[Picked, Outcome]:
        """The share, and what it does."""
        right = levels.is_right
        mass, outcome = calibrate_mass(
            MASSES,
            _first_that_holds(levels, MASSES),
            right[:, :-1],
            right[:, self.base],
            gmacs=levels.gmacs[:-1],
            gmacs_base=float(levels.gmacs[self.base]),
            goal=goal,
            views=levels.views,
        )
        return (mass,), outcome

    def give(self, levels: Levels, picked: Picked) -> Ints:
        """The first level that holds the share, else the last but the full model, (V,)."""
        return _first_that_holds(levels, np.array(picked))[:, 0]

    def gmacs(self, levels: Levels, given: Ints) -> Floats:
        """The levels' own."""
        return levels.gmacs[given]

    def budget(self, levels: Levels, picked: Picked) -> MassBudget:
        """The same rule as a model follows it."""
        return MassBudget(mass=picked[0], levels=levels.keep_ratios[:-1])


def candidates(levels: Levels) -> list[Candidate]:
    """Every rule from every base below 1 whose rows are there; each kind's bases descending."""
    at = {ratio: level for level, ratio in enumerate(levels.keep_ratios)}
    bases = [ratio for ratio in sorted(at, reverse=True) if min(at) < ratio < 1]
    pairs = [(at[b], at[small_ratio(b)]) for b in bases if small_ratio(b) in at]
    pairs = [(base, small) for base, small in pairs if small < base]
    return [
        *(Thresholds(base=base, small=small, asked=0) for base, small in pairs if small > 0),
        *(Thresholds(base=base, small=small, asked=small) for base, small in pairs),
        *(Mass(base=at[ratio]) for ratio in bases),
    ]


def _first_that_holds(levels: Levels, masses: Floats) -> Ints:
    """The level that each row gets at each share, (V, M)."""
    held = levels.mass[:, :-1]
    return np.minimum((held[:, :, None] < masses).sum(axis=1), held.shape[1] - 1)
