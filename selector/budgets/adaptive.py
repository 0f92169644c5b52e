"""Adaptive budgets after the fact: they mix the stored rows of a selector at several keep ratios.

What sets a budget is picked on one half of the videos and judged on the other, both ways round, so
that no video sets the thresholds it is judged by. In an evaluation's report a budget is set per
video, for all its views, as in the paper.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from pipeline.errors import ConfigError
from selector.budgets.candidates import Candidate, Picked, Thresholds, candidates
from selector.budgets.levels import Bools, Floats, Ints, Levels, levels_of
from selector.budgets.pick import Goal
from selector.evaluation.files import EvaluationInfo
from selector.evaluation.report.table import Entry
from selector.evaluation.results import Outcomes
from selector.training.split import halves

MAX_LOSS = 0.006
"""Top-1, as a share, that an adaptive budget may cost on the videos it is picked on."""


@dataclass(frozen=True, kw_only=True)
class AdaptiveGoal:
    """What budgets are picked for: a loss against their base, or a cost; exactly one of them."""

    max_loss: float | None = None
    """Share of the videos that may be lost; the cheapest budget is taken."""
    gmacs_share: float | None = None
    """Mean cost as a share of the base's; the most accurate budget is taken."""

    def of(self, gmacs_base: float) -> Goal:
        """The goal at one base.

        The loss is an estimate: these budgets promise nothing, and are judged on the other half.

        Raises:
            ConfigError: none or both are given, or one is out of range.
        """
        target = None if self.gmacs_share is None else self.gmacs_share * gmacs_base
        return Goal(max_loss=self.max_loss, target_gmacs=target, certainty=None)


@dataclass(frozen=True, kw_only=True)
class AdaptiveSetting:
    """How one adaptive line of the table came about."""

    method: str
    """The line's: the selector's, with the kind behind it."""
    selector: str
    """The selector's method."""
    kind: str
    """`candidates.PAPER`, `CASCADE` or `MASS`."""
    base_ratio: float
    small_ratio: float | None
    """Keep ratio of the easy and the hopeless; None for the mass."""
    confidence_ratio: float | None
    """Keep ratio that the confidence comes from; None for the mass."""
    shares: dict[float, float]
    """Keep ratio to the share of the videos that get it."""
    picked: tuple[Picked, ...]
    """(alpha, beta), or the mass, that the videos of each half were judged by."""


@dataclass(frozen=True, kw_only=True)
class AdaptiveResult:
    """One base ratio of one selector made adaptive."""

    setting: AdaptiveSetting
    entry: Entry
    mixture: Entry
    """A fixed budget of the same cost; see `Levels.random_mixture`."""


@dataclass(frozen=True)
class CrossFit:
    """What each row gets under the parameters that were picked on the other half.

    Attributes:
        given: (V,) levels.
        gmacs: (V,) of one view of each row.
        picked: what the first half (False) and the second were judged by.
    """

    given: Ints
    gmacs: Floats
    picked: tuple[Picked, ...]


def cross_fit(levels: Levels, candidate: Candidate, goal: Goal, half: Bools) -> CrossFit:
    """Pick on each half of the rows, and give the other half its levels.

    Args:
        levels: of V rows.
        candidate: whose parameters are picked.
        goal: what to meet on the half that they are picked on.
        half: (V,), neither all True nor all False.

    Raises:
        ConfigError: one half cannot meet the goal.
    """
    given = np.empty(len(half), np.int64)
    picked = []
    for judged in (False, True):
        chosen = half != judged
        part = replace(goal, share=float(chosen.mean()))
        found, _ = candidate.pick(levels.of(chosen), part)
        given[half == judged] = candidate.give(levels.of(half == judged), found)
        picked.append(found)
    return CrossFit(given, candidate.gmacs(levels, given), tuple(picked))


def shares_of(levels: Levels, given: Ints) -> dict[float, float]:
    """Keep ratio to the share of the rows that get it; those that some row gets, ascending."""
    levels_given, times = np.unique(given, return_counts=True)
    return {
        levels.keep_ratios[level]: float(share)
        for level, share in zip(levels_given, times / len(given), strict=True)
    }


def adaptive_results(
    outcomes: Outcomes, info: EvaluationInfo, goal: AdaptiveGoal
) -> tuple[list[AdaptiveResult], list[str]]:
    """Every selector, rule and base ratio whose rows are there.

    Returns:
        What came out, and which combinations cannot meet the goal and why.

    Raises:
        ConfigError: the goal is out of range.
    """
    goal.of(1.0)  # what is wrong with the goal itself is no combination's fault
    results, out_of_reach = [], []
    half = halves(outcomes.units)
    if half.all() or not half.any():
        return [], []
    for method in info.config.lite_methods:
        if method in outcomes.without:
            continue
        levels = levels_of(outcomes, info, method)
        for candidate in candidates(levels):
            try:
                results.append(_adapt(levels, candidate, half, goal))
            except ConfigError as error:
                name = f"{method}{candidate.name}"
                base = levels.keep_ratios[candidate.base]
                out_of_reach.append(f"{name} from {base:g}: {error}")
    return results, out_of_reach


def _adapt(levels: Levels, candidate: Candidate, half: Bools, goal: AdaptiveGoal) -> AdaptiveResult:
    base_ratio = levels.keep_ratios[candidate.base]
    fitted = cross_fit(levels, candidate, goal.of(float(levels.gmacs[candidate.base])), half)
    small = asked = None
    if isinstance(candidate, Thresholds):
        assert isinstance(candidate.asked, int)
        small, asked = levels.keep_ratios[candidate.small], levels.keep_ratios[candidate.asked]
    name = f"{levels.method}{candidate.name}"
    setting = AdaptiveSetting(
        method=name,
        selector=levels.method,
        kind=candidate.name,
        base_ratio=base_ratio,
        small_ratio=small,
        confidence_ratio=asked,
        shares=shares_of(levels, fitted.given),
        picked=fitted.picked,
    )
    return AdaptiveResult(
        setting=setting,
        entry=levels.mixed(name, base_ratio, fitted.given, fitted.gmacs),
        mixture=levels.random_mixture(base_ratio, fitted.gmacs),
    )
