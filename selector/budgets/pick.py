"""Choosing an adaptive budget's parameters on labelled rows, to meet a cost or an accuracy.

Pure functions on arrays. At a cost every candidate is tried: what comes out is the best *on these
rows*, so the accuracy reported with it is optimistic, the more so the fewer rows there are. So
`selector.budgets.adaptive` judges on rows that were not picked on.

A loss is a promise about other videos, and the cheapest of many candidates whose loss looks small
here breaks it more often than not. So a candidate must have an upper bound of its loss within
the goal (Tango's score bound of flips less repairs), and candidates are tried in an order that was
fixed before, from the dearest down, until one fails: then no more than the stated share of draws
breaks the promise, however many candidates there are (fixed-sequence testing; Angelopoulos et al.,
"Learn then Test", 2021).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import ConfigError
from selector.statistics import LEVEL, paired_loss_bound

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

_MAX_CUTS = 21
"""Thresholds tried on each side: one for every 5 % of the rows. Finer ones only fit the noise.

Measured on the rendered benchmark, picked on 1,000 of 2,000 videos and judged on the others, many
times, for four base budgets and two confidences. An allowed loss of 0.6 points became 1.03 points
with 512 cuts, 0.92 with 100, 0.79 with 40 and 0.65 with 21; on 300 rows 1.65 and 1.15. At equal
cost, 512 lost 1.15 points, 101 1.10, 41 1.06, 21 1.04 and 11 1.01, which meets a target cost to
a tenth of the rows only.
"""
_SLACK = 1e-9
"""Sums of many equal costs or shares do not come out equal to the last bit."""
MIN_ROWS = 100
"""Fewer rows pick noise: one cut would move fewer than five of them."""


@dataclass(frozen=True, kw_only=True)
class Goal:
    """What to meet: exactly one of the two.

    Raises:
        ConfigError: none or both are given, or one is out of range.
    """

    target_gmacs: float | None = None
    """Mean GMACs of one view, at most; the most accurate budget within it is taken."""
    max_loss: float | None = None
    """Share of the rows, at most, that may be lost against the base; the cheapest is taken."""
    certainty: float | None = LEVEL
    """Share of the draws of videos in which the loss must hold for videos not drawn; None takes the
    estimate for the truth."""
    share: float = 1.0
    """Of the rows that the budget is picked on in the end: a part of them picks with the margin
    that all of them leave."""

    def __post_init__(self) -> None:
        if (self.target_gmacs is None) == (self.max_loss is None):
            raise ConfigError("give either a target cost or a maximal accuracy loss, not both")
        if self.target_gmacs is not None and not self.target_gmacs > 0:
            raise ConfigError(f"the target cost must be above 0, got {self.target_gmacs!r}")
        if self.max_loss is not None and not 0 <= self.max_loss < 1:
            raise ConfigError(f"the accuracy loss must lie in [0, 1), got {self.max_loss!r}")
        if self.certainty is not None and not 0.5 < self.certainty < 1:
            raise ConfigError(f"the certainty must lie in (0.5, 1), got {self.certainty!r}")

    def to_dict(self) -> dict[str, float | None]:
        """What was asked for, as plain JSON values."""
        certainty = None if self.max_loss is None else self.certainty
        return {
            "target_gmacs": self.target_gmacs,
            "max_loss": self.max_loss,
            "certainty": certainty,
        }

    def quantile(self, part: float | Floats = 1.0) -> Floats:
        """Of the normal distribution, for a bound that may fail in a part of the draws allowed."""
        if self.certainty is None:
            return np.zeros_like(np.asarray(part, np.float64))
        failing = np.asarray(part, np.float64) * (1 - self.certainty)
        z = np.vectorize(NormalDist().inv_cdf, otypes=[np.float64])(1 - failing)
        return z * np.sqrt(self.share)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a calibrated budget does on some rows."""

    num_rows: int
    gmacs: float
    """Mean of one view, everything included."""
    accuracy: float
    base_gmacs: float
    """The base budget alone, without a confidence model."""
    base_accuracy: float
    warning: str | None = None
    """Why this is no reason to adapt, where it is none."""


def calibrate_thresholds(
    confidence: Floats,
    correct_small: Bools,
    correct_base: Bools,
    *,
    gmacs_small: float,
    gmacs_base: float,
    gmacs_confidence: float,
    gmacs_fixed: float | None = None,
    goal: Goal,
    views: int = 1,
) -> tuple[float, float, Outcome]:
    """Pick alpha and beta of the paper's rule.

    Args:
        confidence: (n,) in [0, 1].
        correct_small: (n,) whether the prediction at the small budget is right.
        correct_base: (n,) the same at the base budget.
        gmacs_small: cost of a view at the small budget, beyond `gmacs_confidence`. Where the
            confidence is the backbone's on these very tokens, that is without its blocks.
        gmacs_base: the same at the base budget.
        gmacs_confidence: cost of the confidence model, which every view pays.
        gmacs_fixed: cost of a view where all get the base budget; None: `gmacs_base`.
        goal: what to meet. Half of the certainty's failures go to the thresholds without a lower
            side, the other half to all the others.
        views: rows of one video, which count as one where a loss is bounded.

    Returns:
        alpha, beta, and what they do on these rows.

    Raises:
        ConfigError: no rows, a confidence that is not a number, or no thresholds meet the goal.
    """
    _check_rows(confidence, correct_small, correct_base)
    order = np.argsort(confidence, kind="stable")
    ordered = np.asarray(confidence, np.float64)[order]
    num = len(ordered)
    # A cut at i separates the i least confident rows; equal confidences cannot be separated.
    cuts = np.r_[0, np.flatnonzero(np.diff(ordered)) + 1, num]
    cuts = cuts[np.unique(np.linspace(0, len(cuts) - 1, _MAX_CUTS).round().astype(int))]
    flips, repairs = (
        np.r_[0, np.cumsum(side[order])]  # [i]: among the i least confident
        for side in (correct_base & ~correct_small, correct_small & ~correct_base)
    )
    low, high = np.meshgrid(cuts, cuts, indexing="ij")
    real, num_small = low <= high, low + (num - high)

    def outside(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        return np.where(real, counts[low] + (counts[num] - counts[high]), 0)

    base_accuracy = float(correct_base.mean())
    lost, won = outside(flips), outside(repairs)
    accuracy = (int(correct_base.sum()) - lost + won) / num
    gmacs = gmacs_confidence + gmacs_base - (gmacs_base - gmacs_small) * num_small / num
    # From the dearest down is from the highest upper side down, at each lower side.
    parts = np.full(len(cuts), 0.5 / max(1, len(cuts) - 1))
    parts[0] = 0.5
    bound = _loss_bounds(lost, won, num, goal.quantile(parts)[:, None], views)
    bound[num_small == 0] = 0  # the base itself
    within = _until_one_fails(bound[:, ::-1], goal)[:, ::-1]
    best = _choose(gmacs[real], accuracy[real], base_accuracy, goal, bound[real], within[real])
    low, high, accuracy, gmacs = low[real], high[real], accuracy[real], gmacs[real]
    outcome = _outcome(
        goal,
        num_rows=num,
        gmacs=float(gmacs[best]),
        accuracy=float(accuracy[best]),
        base_gmacs=gmacs_base if gmacs_fixed is None else gmacs_fixed,
        base_accuracy=base_accuracy,
    )
    return _threshold(ordered, int(low[best])), _threshold(ordered, int(high[best])), outcome


def calibrate_mass(
    masses: Floats,
    level: npt.NDArray[np.int64],
    correct: Bools,
    correct_base: Bools,
    *,
    gmacs: Floats,
    gmacs_base: float,
    goal: Goal,
    views: int = 1,
) -> tuple[float, Outcome]:
    """Pick the share of predicted mass that the kept tokens must hold.

    Args:
        masses: (M,) the candidates, ascending.
        level: (n, M) which level each row gets at each mass.
        correct: (n, L) whether the prediction at each level is right.
        correct_base: (n,) the same at the base budget, what a loss is counted from.
        gmacs: (L,) cost of a view at each level.
        gmacs_base: cost of a view at the base budget.
        goal: what to meet.
        views: rows of one video, which count as one where a loss is bounded.

    Raises:
        ConfigError: no rows, or no mass meets the goal.
    """
    _check_rows(correct_base, correct, level)
    right, base = np.take_along_axis(correct, level, axis=1), correct_base[:, None]
    accuracy = right.mean(axis=0)
    mean_gmacs = np.asarray(gmacs)[level].mean(axis=0)
    base_accuracy = float(correct_base.mean())
    lost, won = (base & ~right).sum(axis=0), (right & ~base).sum(axis=0)
    bound = _loss_bounds(lost, won, len(right), goal.quantile(), views)
    within = _until_one_fails(bound[::-1], goal)[::-1]
    best = _choose(mean_gmacs, accuracy, base_accuracy, goal, bound, within)
    return float(masses[best]), _outcome(
        goal,
        num_rows=len(correct_base),
        gmacs=float(mean_gmacs[best]),
        accuracy=float(accuracy[best]),
        base_gmacs=gmacs_base,
        base_accuracy=base_accuracy,
    )


def _loss_bounds(
    lost: npt.NDArray[np.int64], won: npt.NDArray[np.int64], num: int, z: Floats, views: int
) -> Floats:
    """Upper bounds of the loss; views of one video may all fall alike, and count as one."""
    levels = np.broadcast_to(z, lost.shape)
    found = np.empty(lost.shape)
    for value in np.unique(levels):
        at = levels == value
        found[at] = paired_loss_bound(lost[at] / views, won[at] / views, num / views, float(value))
    return found


def _until_one_fails(bound: Floats, goal: Goal) -> Bools:
    """Which candidates of a sequence, along the last axis, hold the loss as all before them do.

    Without a certainty every one stands for itself.
    """
    holds = bound <= (goal.max_loss or 0.0) + _SLACK
    if goal.certainty is None:
        return holds
    found: Bools = np.logical_and.accumulate(holds, axis=-1)
    return found


def _choose(
    gmacs: Floats,
    accuracy: Floats,
    base_accuracy: float,
    goal: Goal,
    bound: Floats,
    within: Bools,
) -> int:
    """The best candidate; among equals the cheaper or more accurate, then the first.

    Args:
        gmacs: (K,) mean cost.
        accuracy: (K,) on these rows.
        base_accuracy: what a loss counts from.
        goal: what to meet.
        bound: (K,) of the loss.
        within: (K,) whether the candidate holds the loss.

    Raises:
        ConfigError: none meets the goal.
    """
    if goal.target_gmacs is not None:
        fits = gmacs <= goal.target_gmacs + _SLACK
        keys: tuple[Floats, Floats] = (gmacs, -accuracy)
        reach = f"{goal.target_gmacs:g} GFLOPs is below {gmacs.min():.4g}, the cheapest possible"
    else:
        assert goal.max_loss is not None
        fits = within
        keys = (-accuracy, gmacs)
        reach = (
            f"no budget keeps the accuracy within {goal.max_loss:.4f} of {base_accuracy:.4f}; "
            f"the best has {accuracy.max():.4f}"
        )
        if goal.certainty is not None:
            reach = (
                f"no budget is shown to lose at most {100 * goal.max_loss:.2f} points on other "
                f"videos: the least that is sure to {goal.certainty:.0%} is "
                f"{100 * bound.min():.2f} points, and more videos tell more"
            )
    if not fits.any():
        raise ConfigError(f"{reach}; ask for less, or use another base or small keep ratio")
    allowed = np.flatnonzero(fits)
    return int(allowed[np.lexsort(tuple(key[allowed].round(12) for key in keys))[0]])


def _outcome(goal: Goal, **numbers: Any) -> Outcome:
    """With a warning where these rows do not speak for the budget."""
    found = Outcome(**numbers)
    # At a given cost, more accuracy than the base's is a gain; within a loss, only a lower cost is.
    gained = goal.target_gmacs is not None and found.accuracy > found.base_accuracy
    warning = None
    if found.num_rows < MIN_ROWS:
        warning = f"{found.num_rows} rows are too few to pick a budget on (at least {MIN_ROWS})"
    elif not (gained or found.gmacs < found.base_gmacs):
        warning = (
            f"it costs {found.gmacs:.4g} GFLOPs, no less than the fixed budget's "
            f"{found.base_gmacs:.4g}"
        )
        if goal.max_loss is not None and goal.certainty is not None:
            warning += (
                f", and no cheaper one is shown to lose at most {100 * goal.max_loss:.2f} points "
                "on other videos: more videos tell more"
            )
    return replace(found, warning=warning)


def _threshold(ordered: Floats, cut: int) -> float:
    """A number between the `cut` least confidences and the others; 0 and 1 where it can be."""
    if cut == 0:
        return 0.0 if ordered[0] > 0 else -1.0
    if cut == len(ordered):
        return 1.0 if ordered[-1] < 1 else 2.0
    return float((ordered[cut - 1] + ordered[cut]) / 2)


def _check_rows(first: npt.NDArray[np.generic], *others: npt.NDArray[np.generic]) -> None:
    if len(first) == 0 or any(len(other) != len(first) for other in others):
        raise ConfigError(
            f"calibration needs rows, as many of each kind; got "
            f"{[len(array) for array in (first, *others)]}"
        )
    if not np.isfinite(np.asarray(first, np.float64)).all():
        raise ConfigError("a confidence is not a number; leave such rows out")
