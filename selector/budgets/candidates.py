"""Adaptive budgets over the rungs of a ladder: what they pick, whom they give which rung, the cost.

Axes: V videos, L rungs, M shares of mass.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from selector.budgets.levels import Floats, Ints, Ladder
from selector.budgets.pick import Goal, calibrate_mass, calibrate_thresholds
from selector.budgets.rules import small_ratio

MASSES = np.arange(1, 101) / 100
"""Shares of predicted mass that are tried."""

Picked = tuple[float, ...]


class Rule(Protocol):
    """One way of giving every video a budget; positions are rungs of a ladder."""

    @property
    def name(self) -> str:
        """Written behind the selector's method."""

    @property
    def base(self) -> int:
        """The fixed budget that it replaces."""

    def pick(self, ladder: Ladder, goal: Goal) -> Picked:
        """Its parameters, the best on these videos.

        Raises:
            ConfigError: nothing meets the goal.
        """

    def rungs(self, ladder: Ladder, picked: Picked) -> Ints:
        """The rung that answers for each video, (V,)."""

    def gmacs(self, ladder: Ladder, rungs: Ints) -> Floats:
        """Cost of one view of each video on its rung, with everything, (V,)."""


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """The paper's LITE++: a small budget for confidences below alpha or above beta.

    The confidence is the backbone's on the best tokens of the rung `asked`. With `asked` the small
    budget itself it is a cascade: the videos that stay small have their answer already, and only
    the others enter the blocks once more.
    """

    base: int
    small: int
    asked: int

    @property
    def name(self) -> str:
        """Written behind the selector's method."""
        return CASCADE if self.asked == self.small else PAPER

    def pick(self, ladder: Ladder, goal: Goal) -> Picked:
        """Alpha and beta."""
        right = ladder.is_right
        alpha, beta, _ = calibrate_thresholds(
            ladder.confidence[:, self.asked],
            right[:, self.small],
            right[:, self.base],
            gmacs_small=self._gmacs_small(ladder),
            gmacs_base=float(ladder.gmacs[self.base]),
            gmacs_confidence=float(ladder.gmacs_blocks[self.asked]),
            goal=goal,
        )
        return alpha, beta

    def rungs(self, ladder: Ladder, picked: Picked) -> Ints:
        """The small one or the base, (V,)."""
        (alpha, beta), confidence = picked, ladder.confidence[:, self.asked]
        return np.where((confidence < alpha) | (confidence > beta), self.small, self.base)

    def gmacs(self, ladder: Ladder, rungs: Ints) -> Floats:
        """Embedding and ranking once, the confidence's blocks for all, the answer's for each."""
        answers = np.where(rungs == self.small, self._gmacs_small(ladder), ladder.gmacs[self.base])
        return ladder.gmacs_blocks[self.asked] + answers

    def _gmacs_small(self, ladder: Ladder) -> float:
        """What the small budget costs beyond the confidence."""
        known = ladder.gmacs_blocks[self.small] if self.asked == self.small else 0.0
        return float(ladder.gmacs[self.small] - known)


@dataclass(frozen=True, kw_only=True)
class Mass:
    """The fewest tokens, rounded up to a rung, that hold a share of the predicted scores.

    The full model is no rung of it, as in `MassBudget`.
    """

    base: int

    @property
    def name(self) -> str:
        """Written behind the selector's method."""
        return MASS

    def pick(self, ladder: Ladder, goal: Goal) -> Picked:
        """The share."""
        right = ladder.is_right
        mass, _ = calibrate_mass(
            MASSES,
            _levels(ladder, MASSES),
            right[:, :-1],
            right[:, self.base],
            gmacs=ladder.gmacs[:-1],
            gmacs_base=float(ladder.gmacs[self.base]),
            goal=goal,
        )
        return (mass,)

    def rungs(self, ladder: Ladder, picked: Picked) -> Ints:
        """The first rung that holds the share, else the last but the full model, (V,)."""
        return _levels(ladder, np.array(picked))[:, 0]

    def gmacs(self, ladder: Ladder, rungs: Ints) -> Floats:
        """The rungs' own."""
        return ladder.gmacs[rungs]


PAPER, CASCADE, MASS = "++", "++ cascade", " mass"


def rules(ladder: Ladder) -> list[Rule]:
    """Every rule from every base whose rows are there; of each kind together, bases descending."""
    at = {ratio: rung for rung, ratio in enumerate(ladder.keep_ratios)}
    bases = [ratio for ratio in sorted(at, reverse=True) if min(at) < ratio < 1]
    pairs = [(at[b], at[small_ratio(b)]) for b in bases if small_ratio(b) in at]
    pairs = [(base, small) for base, small in pairs if small < base]
    return [
        *(Thresholds(base=base, small=small, asked=0) for base, small in pairs if small > 0),
        *(Thresholds(base=base, small=small, asked=small) for base, small in pairs),
        *(Mass(base=at[ratio]) for ratio in bases),
    ]


def _levels(ladder: Ladder, masses: Floats) -> Ints:
    """The rung that each video gets at each share, (V, M)."""
    held = ladder.mass[:, :-1]
    return np.minimum((held[:, :, None] < masses).sum(axis=1), held.shape[1] - 1)
