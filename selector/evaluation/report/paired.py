"""Differences of two lines of the table on the same videos, with intervals of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from selector.budgets.adaptive import AdaptiveResult
from selector.evaluation.report.table import Entry
from selector.statistics import mean_interval

Pair = tuple[Entry, Entry]


@dataclass(frozen=True, kw_only=True)
class PairedDifference:
    """Top-1 of one line minus another's on the same videos, with its interval."""

    method: str
    keep_ratio: float
    against: str
    """The other line's method, at the same keep ratio; `coin` for a fixed budget of equal cost."""
    difference: float
    low: float
    high: float


def pairs(
    fixed: Sequence[Entry], lite_methods: Sequence[str], adaptive: Sequence[AdaptiveResult]
) -> list[Pair]:
    """Lines, and what each is compared with.

    Args:
        fixed: fixed budgets; each is compared with `random`.
        lite_methods: selectors; each is compared with the first.
        adaptive: each is compared with its base and with its coin.
    """
    found = {(line.method, line.keep_ratio): line for line in fixed}
    made = []
    for line in fixed:
        others = ["random", *(lite_methods[:1] if line.method in lite_methods else ())]
        keys = [(other, line.keep_ratio) for other in others if other != line.method]
        made += [(line, found[key]) for key in keys if key in found]
    for result in adaptive:
        base = found[result.setting.selector, result.entry.keep_ratio]
        made += [(result.entry, base), (result.entry, result.coin)]
    return made


def paired(chosen: Sequence[Pair], num_draws: int, seed: int) -> list[PairedDifference]:
    """The differences of all pairs, over the same resamples."""
    if not chosen:
        return []
    gaps = np.stack([a.top1.mean(axis=1) - b.top1.mean(axis=1) for a, b in chosen], axis=1)
    low, high = mean_interval(gaps, (-1.0, 1.0), num_draws, seed)
    return [
        PairedDifference(
            method=a.method,
            keep_ratio=a.keep_ratio,
            against=b.method,
            difference=float(gaps[:, i].mean()),
            low=float(low[i]),
            high=float(high[i]),
        )
        for i, (a, b) in enumerate(chosen)
    ]
