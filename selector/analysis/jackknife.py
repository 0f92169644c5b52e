"""Intervals by leaving out groups of videos in turn.

Tokens of one video are alike, and clips of one video or source too, so these are left out whole; in
groups, because a histogram of each video would not fit in memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import stdtrit

NUM_GROUPS = 50
"""Groups of videos that are left out in turn."""
MIN_GROUPS = 10
"""Groups that an interval needs."""


def video_groups(units: pd.Series) -> npt.NDArray[np.int64]:
    """A group for each clip: equally many videos, or sources of them, in each, dealt by chance."""
    unit, names = pd.factorize(units)
    return (np.random.default_rng(0).permutation(len(names)) % NUM_GROUPS)[unit]


def jackknife(
    statistic: Callable[[npt.NDArray[Any]], float], groups: npt.NDArray[Any]
) -> tuple[float, float]:
    """95 % interval of a statistic of counts that add up, by the jackknife over groups.

    Right for what changes smoothly with the counts: shares, Gini, a fitted shape. On tails so heavy
    that single tokens count, it is a little too narrow: of 150 samples of 200,000 Pareto values it
    held the share of the best 1 and 10 % in 89 and 92 % for a density exponent of 3, and in 94 and
    95 % for 4 (exponential: 95). BCa and studentised bootstraps held it no more often.

    Args:
        statistic: of the sum of the groups.
        groups: (groups, ...), counts of each; empty ones are left out.

    Returns:
        Low and high; NaN with fewer than `MIN_GROUPS` groups that hold anything, or where the
        statistic is NaN for one of the replicates.
    """
    filled = groups[groups.reshape(len(groups), -1).any(axis=1)]
    num = len(filled)
    if num < MIN_GROUPS:
        return math.nan, math.nan
    pooled = filled.sum(axis=0)
    error = math.sqrt((num - 1) * float(np.var([statistic(pooled - out) for out in filled])))
    width = float(stdtrit(num - 1, 0.975)) * error  # the quantile of Student's t
    whole = statistic(pooled)
    return whole - width, whole + width
