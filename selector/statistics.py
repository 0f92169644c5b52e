"""Statistics that several rooms need: rank correlation, and how far chance could move a number.

The bootstrap draws videos with replacement, the same draws for every column, so that the difference
of two columns keeps what their videos have in common. Videos of one group (cut from one recording,
say) are no independent draws: where groups are given, whole groups are drawn (the cluster
bootstrap), and a test is over the groups' sums. Where all outcomes are equal it has nothing
to resample and would call them certain; there Wilson's bound stands in.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata, ttest_1samp

Floats = npt.NDArray[np.float64]
Groups = npt.NDArray[np.object_]
"""(V,) name of each video's group."""

NUM_DRAWS = 2000
LEVEL = 0.95
NORMAL = 1.959963984540054
"""Quantile of the normal distribution that `LEVEL` leaves on each side."""
FEW = 30
"""Videos below which an interval is rough at best; what shows one says so."""
_VALUES_AT_ONCE = 1 << 21
_NOISE = 1e-9
"""Differences below this are of rounding: outcomes are shares of a few seeds or views."""


def spearman(x: npt.ArrayLike, y: npt.ArrayLike) -> Floats:
    """Spearman's rank correlation of each row, ties sharing their mean rank.

    Args:
        x: (R, K).
        y: (R, K).

    Returns:
        (R,) in [-1, 1]; NaN where a row of `x` or `y` is constant, which orders nothing.
    """
    ranks = (rankdata(np.asarray(values), axis=1) for values in (x, y))
    a, b = (rank - rank.mean(axis=1, keepdims=True) for rank in ranks)
    with np.errstate(invalid="ignore"):
        rho: Floats = (a * b).sum(axis=1) / np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    return rho


def draws(
    num_videos: int, num_draws: int = NUM_DRAWS, seed: int = 0, groups: Groups | None = None
) -> Iterator[Floats]:
    """Weights of the videos in each resample, some resamples at a time: (R, V).

    Every row sums to one; a video's weight is how often it, or its group, was drawn, over all.
    """
    rng = np.random.default_rng(seed)
    step = max(1, _VALUES_AT_ONCE // num_videos)
    unit = np.arange(num_videos) if groups is None else _numbers(groups)
    num_units = int(unit.max()) + 1
    for first in range(0, num_draws, step):
        rows = min(step, num_draws - first)
        times = np.zeros((rows, num_units))
        for row in times:
            drawn = rng.integers(0, num_units, num_units)
            row += np.bincount(drawn, minlength=num_units)
        weights = times[:, unit]
        yield weights / weights.sum(axis=1, keepdims=True)


def _numbers(groups: Groups) -> npt.NDArray[np.int64]:
    """(V,) names to numbers from 0."""
    found: npt.NDArray[np.int64] = np.unique(groups.astype(str), return_inverse=True)[1]
    return found


def interval(samples: Floats) -> Floats:
    """Percentile interval of R resampled statistics (R, ...): (2, ...), low and high.

    NaN samples are left out. NaN where all others are equal: resampling cannot tell how far the
    statistic could move.
    """
    tail = (1 - LEVEL) / 2
    highest = np.max(samples, axis=0, where=~np.isnan(samples), initial=-np.inf)
    lowest = np.min(samples, axis=0, where=~np.isnan(samples), initial=np.inf)
    moves = highest - lowest > _NOISE
    found: Floats = np.full((2, *samples.shape[1:]), np.nan)
    found[:, moves] = np.nanquantile(samples[:, moves], [tail, 1 - tail], axis=0)
    return found


def _sums(values: Floats, groups: Groups) -> Floats:
    """(V, M) to the sums of each group, (G, M)."""
    number = _numbers(groups)
    sums = np.zeros((number.max() + 1, values.shape[1]))
    np.add.at(sums, number, values)
    return sums


def _are_equal(values: Floats) -> npt.NDArray[np.bool_]:
    """Whether all rows of a column are, (M,), but for what rounding adds to them."""
    return np.asarray(np.ptp(values, axis=0) < _NOISE)


def mean_interval(
    values: Floats,
    bounds: tuple[float, float] = (0.0, 1.0),
    num_draws: int = NUM_DRAWS,
    seed: int = 0,
    groups: Groups | None = None,
) -> Floats:
    """Interval of the mean of each column, over the videos or groups: (2, M), low and high.

    Args:
        values: (V, M).
        bounds: what a video's value can be at the least and at the most. Where all V are equal, as
            many others as Wilson's bound allows might have been either.
        num_draws: resamples.
        seed: of the resampling; the same for every column.
        groups: (V,) of the videos; None where each is its own.
    """
    weights = draws(len(values), num_draws, seed, groups)
    found = interval(np.concatenate([w @ values for w in weights]))
    units = values
    if groups is not None:
        units = _sums(values, groups) / _sums(np.ones((len(values), 1)), groups)
    equal = _are_equal(units)
    value, unseen = units[0, equal], 1 - wilson(len(units), len(units))[0]
    found[:, equal] = [
        value - unseen * (value - bounds[0]),
        value + unseen * (bounds[1] - value),
    ]
    return found


def paired_p_values(gaps: Floats, groups: Groups | None = None) -> Floats:
    """Two-sided p-value of no mean difference, of each column: the paired t-test.

    Args:
        gaps: (V, M) difference of each video. Where all are equal the t-test has no scale, and a
            sign test stands in.
        groups: (V,) of the videos; the test is then of the groups' summed differences.
    """
    if groups is not None:
        gaps = _sums(gaps, groups)
    num, equal = len(gaps), _are_equal(gaps)
    found = np.where(np.abs(gaps[0]) < _NOISE, 1.0, 2.0 ** (1 - num))
    if not equal.all():
        found[~equal] = ttest_1samp(gaps[:, ~equal], 0.0).pvalue
    return found


def holm(p_values: Floats) -> Floats:
    """P-values corrected for being one of a family (Holm 1979): compare them with any level.

    Args:
        p_values: (M,)
    """
    order = np.argsort(p_values)
    steps = np.maximum.accumulate(p_values[order] * np.arange(len(order), 0, -1))
    found = np.empty_like(p_values)
    found[order] = np.minimum(steps, 1.0)
    return found


def wilson(successes: float, trials: int) -> tuple[float, float]:
    """Wilson's interval of a proportion; never empty, also where all trials went one way."""
    share, z2 = successes / trials, NORMAL**2
    centre = share + z2 / (2 * trials)
    half = NORMAL * np.sqrt(share * (1 - share) / trials + z2 / (4 * trials**2))
    low, high = (centre - half) / (1 + z2 / trials), (centre + half) / (1 + z2 / trials)
    return max(0.0, float(low)), min(1.0, float(high))


def paired_loss_bound(flips: npt.ArrayLike, repairs: npt.ArrayLike, num: float, z: float) -> Floats:
    """Upper bound of a net loss of paired outcomes, by Tango's score test (Stat. Med. 1998).

    It holds at few or no flips, too, where a resampling would call the loss certain: with none of
    either it is `z^2 / (num + z^2)`.

    Args:
        flips: of rows that were right before and are wrong now, any shape.
        repairs: of the opposite, of the same shape.
        num: rows in all.
        z: normal quantile of the one-sided level; 0 gives the estimate itself.

    Returns:
        The largest `(flips - repairs) / num` in the population that the test does not refuse.
    """
    b, c = np.asarray(flips, np.float64), np.asarray(repairs, np.float64)
    low, high = (b - c) / num, np.ones_like(b)
    if z <= 0:
        return low
    for _ in range(50):  # halvings
        loss = (low + high) / 2
        middle = (2 * num - b + c) * loss - b - c
        spread = np.sqrt(middle**2 + 8 * num * c * loss * (1 - loss)) - middle
        repaired = spread / (4 * num)  # most likely share of repairs under that loss
        variance = num * (2 * repaired + loss * (1 - loss))
        refused = num * loss - (b - c) > z * np.sqrt(np.maximum(variance, 0))
        low, high = np.where(refused, low, loss), np.where(refused, loss, high)
    return high
