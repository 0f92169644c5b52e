"""The paper's principle 5: classes that the full model knows well lose less when tokens go.

The full model's accuracy stands on both sides (as itself, and in the drop), so its noise pushes
both measures up, against the principle: a negative one is not an artefact. Resampling adds noise
once more, so with few videos per class (below about 30) the intervals lie too high.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from selector.evaluation.config import FULL
from selector.evaluation.report.table import Entry
from selector.statistics import NUM_DRAWS, Groups, draws, interval, spearman

ANALYSIS_RATIO = 0.5
"""The paper's Figure 5."""


@dataclass(frozen=True, kw_only=True)
class ClassTrend:
    """How one method's drop depends on a class's full accuracy.

    Intervals are over videos or groups, and NaN where all resamples agree.
    """

    method: str
    keep_ratio: float
    spearman: float
    """Rank correlation of full accuracy with the drop; the principle says negative."""
    spearman_low: float
    spearman_high: float
    slope: float
    """Least squares: points of drop per point of full accuracy."""
    slope_low: float
    slope_high: float
    accuracy: tuple[float, ...]
    """Per class with videos, by class id: the full model's top-1."""
    drop: tuple[float, ...]
    """Per class with videos, by class id: top-1 lost at this keep ratio."""
    class_ids: tuple[int, ...]


def class_trends(
    lines: Sequence[Entry],
    labels: npt.NDArray[np.int64],
    keep_ratio: float = ANALYSIS_RATIO,
    num_draws: int = NUM_DRAWS,
    seed: int = 0,
    groups: Groups | None = None,
) -> list[ClassTrend]:
    """One trend per method that was evaluated at `keep_ratio`; none with fewer than 3 classes.

    Args:
        lines: one of them is the full model.
        labels: (V,) class of each video.
        keep_ratio: where the drop is taken.
        num_draws: resamples.
        seed: of the resampling.
        groups: (V,) of the videos, which are resampled by group then.
    """
    chosen = [line for line in lines if line.keep_ratio == keep_ratio and line.method != FULL]
    class_ids, at = np.unique(labels, return_inverse=True)
    if not chosen or len(class_ids) < 3:
        return []
    full = next(line for line in lines if line.method == FULL)
    right = np.stack([line.top1.mean(axis=1) for line in [full, *chosen]], axis=1)
    member = np.eye(len(class_ids))[at]
    observed = _trend(_per_class(np.full((1, len(labels)), 1 / len(labels)), member, right))
    samples = [
        _trend(_per_class(weights, member, right))
        for weights in draws(len(labels), num_draws, seed, groups)
    ]
    low, high = interval(np.concatenate(samples))  # (methods, 2)
    accuracy = _per_class(np.ones((1, len(labels))), member, right)[0]
    return [
        ClassTrend(
            method=line.method,
            keep_ratio=keep_ratio,
            spearman=float(observed[0, i, 0]),
            spearman_low=float(low[i, 0]),
            spearman_high=float(high[i, 0]),
            slope=float(observed[0, i, 1]),
            slope_low=float(low[i, 1]),
            slope_high=float(high[i, 1]),
            accuracy=tuple(accuracy[:, 0].tolist()),
            drop=tuple((accuracy[:, 0] - accuracy[:, 1 + i]).tolist()),
            class_ids=tuple(class_ids.tolist()),
        )
        for i, line in enumerate(chosen)
    ]


def _per_class(
    weights: npt.NDArray[np.float64],
    member: npt.NDArray[np.float64],
    right: npt.NDArray[np.float64],
) -> npt.NDArray[np.float64]:
    """Accuracy of each class under each column, (R, classes, columns); NaN where none was drawn."""
    count = weights @ member
    with np.errstate(invalid="ignore"):
        return np.stack(
            [weights @ (member * column[:, None]) / count for column in right.T], axis=2
        )


def _trend(accuracy: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(R, classes, 1 + methods) -> (R, methods, 2): rank correlation and slope."""
    full = accuracy[:, :, 0]
    drop = full[:, :, None] - accuracy[:, :, 1:]
    found = np.full((*drop.shape[::2], 2), np.nan)
    whole = np.isfinite(full).all(axis=1)  # a class that was not drawn has no accuracy
    centred = full[whole] - full[whole].mean(axis=1, keepdims=True)
    spread = (centred**2).sum(axis=1)
    for method in range(drop.shape[2]):
        lost = drop[whole, :, method]
        rho = spearman(lost, full[whole])
        # A method that loses nothing anywhere orders no classes.
        rho = np.where((np.ptp(lost, axis=1) == 0) & (spread > 0), 0.0, rho)
        with np.errstate(invalid="ignore", divide="ignore"):
            slope = (centred * lost).sum(axis=1) / spread
        found[whole, method] = np.stack([rho, np.where(spread > 0, slope, np.nan)], axis=1)
    return found
