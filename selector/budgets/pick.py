"""Choosing an adaptive budget's parameters on labelled rows, to meet a cost or an accuracy.

Pure functions on arrays. Every candidate is tried: what comes out is the best *on these rows*, so
the accuracy reported with it is optimistic, the more so the fewer rows there are. So
`selector.budgets.adaptive` judges on rows that were not picked on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import ConfigError

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

    def __post_init__(self) -> None:
        if (self.target_gmacs is None) == (self.max_loss is None):
            raise ConfigError("give either a target cost or a maximal accuracy loss, not both")
        if self.target_gmacs is not None and not self.target_gmacs > 0:
            raise ConfigError(f"the target cost must be above 0, got {self.target_gmacs!r}")
        if self.max_loss is not None and not 0 <= self.max_loss < 1:
            raise ConfigError(f"the accuracy loss must lie in [0, 1), got {self.max_loss!r}")


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
        goal: what to meet.

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
    gain = (correct_small.astype(np.int64) - correct_base.astype(np.int64))[order]
    gain_below = np.r_[0, np.cumsum(gain)]  # [i]: rows won by giving the i least the small budget
    low, high = (side.ravel() for side in np.meshgrid(cuts, cuts, indexing="ij"))
    low, high = low[low <= high], high[low <= high]
    num_small = low + (num - high)
    won = gain_below[low] + (gain_below[num] - gain_below[high])

    base_accuracy = float(correct_base.mean())
    accuracy = (int(correct_base.sum()) + won) / num
    gmacs = gmacs_confidence + gmacs_base - (gmacs_base - gmacs_small) * num_small / num
    best = _choose(gmacs, accuracy, base_accuracy, goal)
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

    Raises:
        ConfigError: no rows, or no mass meets the goal.
    """
    _check_rows(correct_base, correct, level)
    accuracy = np.take_along_axis(correct, level, axis=1).mean(axis=0)
    mean_gmacs = np.asarray(gmacs)[level].mean(axis=0)
    base_accuracy = float(correct_base.mean())
    best = _choose(mean_gmacs, accuracy, base_accuracy, goal)
    return float(masses[best]), _outcome(
        goal,
        num_rows=len(correct_base),
        gmacs=float(mean_gmacs[best]),
        accuracy=float(accuracy[best]),
        base_gmacs=gmacs_base,
        base_accuracy=base_accuracy,
    )


def _choose(gmacs: Floats, accuracy: Floats, base_accuracy: float, goal: Goal) -> int:
    """The best candidate; among equals the cheaper or more accurate, then the first."""
    slack = 1e-9  # sums of many equal costs do not come out equal to the last bit
    if goal.target_gmacs is not None:
        fits = gmacs <= goal.target_gmacs + slack
        keys: tuple[Floats, Floats] = (gmacs, -accuracy)
        reach = f"{goal.target_gmacs:g} GFLOPs is below {gmacs.min():.4g}, the cheapest possible"
    else:
        assert goal.max_loss is not None
        fits = accuracy >= base_accuracy - goal.max_loss - slack
        keys = (-accuracy, gmacs)
        reach = (
            f"no budget keeps the accuracy within {goal.max_loss:.4f} of {base_accuracy:.4f}; "
            f"the best has {accuracy.max():.4f}"
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
