"""Accuracy against cost: one row per method and keep ratio, intervals over videos or groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from selector.evaluation.config import FULL
from selector.evaluation.files import EvaluationInfo
from selector.evaluation.results import Outcomes
from selector.statistics import NUM_DRAWS, Groups, mean_interval


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One line of the table before its intervals: what happened to each video.

    Attributes:
        method: canonical name of the ranking.
        keep_ratio: the budget, as a share of the tokens; None where the content decides.
        num_kept: tokens kept per view, a mean where budgets differ.
        gmacs: of one view with everything that chooses tokens; None for an oracle.
        gmacs_backbone: of one view without what chooses tokens.
        clips_per_s: measured, of one worker, without decoding; None where it was not.
        top1: (V, S) right or wrong, for each seed.
        top5: (V, S)
        gmacs_of: (V,) what each video costs, where its content decides; `gmacs` is the mean.
    """

    method: str
    keep_ratio: float | None
    num_kept: float
    gmacs: float | None
    gmacs_backbone: float
    clips_per_s: float | None
    top1: npt.NDArray[np.float64]
    top5: npt.NDArray[np.float64]
    gmacs_of: npt.NDArray[np.float64] | None = None


@dataclass(frozen=True, kw_only=True)
class TableRow:
    """One line of the table; accuracies are shares in [0, 1], of the videos of the table."""

    method: str
    keep_ratio: float | None
    num_kept: float
    gmacs: float | None
    gmacs_backbone: float
    clips_per_s: float | None
    top1: float
    top1_low: float
    top1_high: float
    top5: float
    difference: float
    """Top-1 minus the full model's on the same videos."""
    difference_low: float
    difference_high: float
    top1_per_seed: tuple[float, ...]
    """One value per seed of `random`; `top1` is their mean."""


def entries(
    outcomes: Outcomes, info: EvaluationInfo, clips_per_s: Sequence[float | None]
) -> list[Entry]:
    """One entry per method and keep ratio, in the configuration's order; seeds are joined."""
    columns: dict[tuple[str, float | None], list[int]] = {}
    for i, condition in enumerate(outcomes.conditions):
        if condition.method not in outcomes.without:
            columns.setdefault((condition.method, condition.keep_ratio), []).append(i)
    top1, top5 = outcomes.top1, outcomes.top5
    return [
        Entry(
            method=method,
            keep_ratio=keep_ratio,
            **_cost(outcomes, info, at[0]),
            clips_per_s=_mean([clips_per_s[i] for i in at]),
            top1=top1[:, at],
            top5=top5[:, at],
        )
        for (method, keep_ratio), at in columns.items()
    ]


def _cost(outcomes: Outcomes, info: EvaluationInfo, column: int) -> dict[str, Any]:
    """The fields of an `Entry` that say what a condition costs, the same for all seeds."""
    found = outcomes.measured.get(column)
    if found is None:
        names = ("num_kept", "gmacs", "gmacs_backbone")
        return {name: getattr(info, name)[column] for name in names}
    return {
        "num_kept": float(found.num_kept.mean()),
        "gmacs": float(found.gmacs.mean()),
        "gmacs_backbone": float(found.gmacs_backbone.mean()),
        "gmacs_of": found.gmacs,
    }


def make_table(
    lines: Sequence[Entry],
    num_draws: int = NUM_DRAWS,
    seed: int = 0,
    groups: Groups | None = None,
) -> list[TableRow]:
    """Means and 95 % intervals over videos or groups; all entries see the same resamples.

    Args:
        lines: one of them is the full model.
        num_draws: resamples.
        seed: of the resampling.
        groups: (V,) of the videos, which are resampled by group then.
    """
    full = next(line for line in lines if line.method == FULL)
    right = np.stack([line.top1.mean(axis=1) for line in lines], axis=1)
    against = right - full.top1.mean(axis=1)[:, None]
    low, high = mean_interval(right, (0.0, 1.0), num_draws, seed, groups)
    less, more = mean_interval(against, (-1.0, 1.0), num_draws, seed, groups)
    itself = [line is full for line in lines]
    less[itself] = more[itself] = 0.0
    return [
        TableRow(
            method=line.method,
            keep_ratio=line.keep_ratio,
            num_kept=line.num_kept,
            gmacs=line.gmacs,
            gmacs_backbone=line.gmacs_backbone,
            clips_per_s=line.clips_per_s,
            top1=float(right[:, i].mean()),
            top1_low=float(low[i]),
            top1_high=float(high[i]),
            top5=float(line.top5.mean()),
            difference=float(against[:, i].mean()),
            difference_low=float(less[i]),
            difference_high=float(more[i]),
            top1_per_seed=tuple(line.top1.mean(axis=0).tolist()),
        )
        for i, line in enumerate(lines)
    ]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
