"""Adaptive budgets after the fact: they mix the stored rows of a selector at several keep ratios.

What sets a budget is picked on one half of the videos and judged on the other, both ways round, so
that no video sets the thresholds it is judged by. A budget is set per video, for all its views, as
in the paper.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.errors import ConfigError
from selector.budgets.candidates import Picked, Rule, Thresholds, rules
from selector.budgets.levels import Bools, Ladder, ladders
from selector.budgets.pick import Goal
from selector.evaluation.files import EvaluationInfo
from selector.evaluation.report.table import Entry
from selector.evaluation.results import VideoOutcomes
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

        Raises:
            ConfigError: none or both are given, or one is out of range.
        """
        target = None if self.gmacs_share is None else self.gmacs_share * gmacs_base
        return Goal(max_loss=self.max_loss, target_gmacs=target)


@dataclass(frozen=True, kw_only=True)
class AdaptiveSetting:
    """How one adaptive line of the table came about."""

    method: str
    """The line's: the selector's, with the kind behind it."""
    selector: str
    """The selector's method."""
    kind: str
    """`rules.PAPER`, `CASCADE` or `MASS`."""
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
    coin: Entry
    """A fixed budget of the same cost; see `Ladder.coin`."""


def adaptive_results(
    outcomes: VideoOutcomes, info: EvaluationInfo, goal: AdaptiveGoal
) -> tuple[list[AdaptiveResult], list[str]]:
    """Every selector, rule and base ratio whose rows are there.

    Returns:
        What came out, and which combinations cannot meet the goal and why.

    Raises:
        ConfigError: the goal is out of range.
    """
    goal.of(1.0)  # what is wrong with the goal itself is no combination's fault
    results, out_of_reach = [], []
    half = halves(outcomes.video_ids)
    if half.all() or not half.any():
        return [], []
    for ladder in ladders(outcomes, info):
        for rule in rules(ladder):
            try:
                results.append(_adapt(ladder, rule, half, goal))
            except ConfigError as error:
                name = f"{ladder.method}{rule.name}"
                out_of_reach.append(f"{name} from {ladder.keep_ratios[rule.base]:g}: {error}")
    return results, out_of_reach


def _adapt(ladder: Ladder, rule: Rule, half: Bools, goal: AdaptiveGoal) -> AdaptiveResult:
    base_ratio = ladder.keep_ratios[rule.base]
    reachable = goal.of(float(ladder.gmacs[rule.base]))
    rungs = np.empty(len(half), np.int64)
    picked = []
    for judged in (False, True):
        found = rule.pick(ladder.of(half != judged), reachable)
        rungs[half == judged] = rule.rungs(ladder.of(half == judged), found)
        picked.append(found)
    gmacs = rule.gmacs(ladder, rungs)
    given, times = np.unique(rungs, return_counts=True)
    small = asked = None
    if isinstance(rule, Thresholds):
        small, asked = ladder.keep_ratios[rule.small], ladder.keep_ratios[rule.asked]
    name = f"{ladder.method}{rule.name}"
    setting = AdaptiveSetting(
        method=name,
        selector=ladder.method,
        kind=rule.name,
        base_ratio=base_ratio,
        small_ratio=small,
        confidence_ratio=asked,
        shares={
            ladder.keep_ratios[rung]: float(share)
            for rung, share in zip(given, times / len(half), strict=True)
        },
        picked=tuple(picked),
    )
    return AdaptiveResult(
        setting=setting,
        entry=ladder.mixed(name, base_ratio, rungs, gmacs),
        coin=ladder.coin(base_ratio, gmacs),
    )
