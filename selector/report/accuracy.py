"""Accuracy against cost as a plain frame, and which lines no other one beats."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from selector.evaluation.config import FULL
from selector.evaluation.report.summary import Summary

COLUMNS = (
    *("method", "keep_ratio", "num_kept", "gmacs", "gmacs_backbone", "clips_per_s"),
    *("top1", "top1_low", "top1_high", "top5", "needs_answer"),
)

FEW_METHODS = 10
"""So many lines can be told apart in one diagram."""


def accuracy_frame(summary: Summary) -> pd.DataFrame:
    """One row per line of the evaluation's table.

    Returns:
        `COLUMNS`: those of `TableRow`, and `needs_answer` for an oracle, whose cost is that of the
        blocks alone; then `best_by_gflops` and `best_by_speed`: no other line that is part of a
        model is as cheap and as accurate, and better in one of the two.
    """
    rows = [
        {name: getattr(row, name) for name in COLUMNS[:-1]} | {"needs_answer": row.gmacs is None}
        for row in summary.table
    ]
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    numbers = ["keep_ratio", "gmacs", "clips_per_s"]
    frame[numbers] = frame[numbers].astype(float)
    usable = ~frame["needs_answer"].to_numpy(bool)
    top1 = frame["top1"].to_numpy(float)
    for name, cost in (("gflops", frame["gmacs"]), ("speed", -frame["clips_per_s"])):
        where = usable & cost.notna().to_numpy()
        best = np.zeros(len(frame), bool)
        best[where] = pareto(cost.to_numpy()[where], top1[where])
        frame[f"best_by_{name}"] = best
    return frame


def chosen_methods(
    frame: pd.DataFrame, selectors: Sequence[str], adaptive: Collection[str] = ()
) -> list[str]:
    """Methods for a diagram that shall stay readable, in the order of the frame.

    Args:
        frame: of `accuracy_frame`.
        selectors: methods that rank by a trained selector.
        adaptive: methods that are left out, where there are many: they have diagrams of their own.

    Returns:
        All, where there are few; else the full model, random, the uniform grid, the selectors, the
        first oracle, and whatever no other line beats at some cost.
    """
    names = list(frame["method"].unique())
    if len(names) <= FEW_METHODS:
        return names
    best = set(frame.loc[frame["best_by_gflops"] | frame["best_by_speed"], "method"])
    oracle = [name for name in names if name.startswith("oracle[")][:1]
    wanted = {FULL, "random", "uniform", *selectors, *oracle, *best}
    return [name for name in names if name in wanted and name not in adaptive]


def pareto(cost: npt.NDArray[np.float64], value: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Which points no other one dominates: no dearer, no worse, and one of them better.

    Args:
        cost: (N,) lower is better.
        value: (N,) higher is better.

    Returns:
        (N,)
    """
    no_worse = (cost[:, None] <= cost) & (value[:, None] >= value)
    better = (cost[:, None] < cost) | (value[:, None] > value)
    return ~np.asarray((no_worse & better).any(axis=0), bool)
