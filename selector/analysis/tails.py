"""How the tail of token values falls: a generalised Pareto fitted to the values above a threshold.

The score in [0, 1] cannot tell: its scaling ends every tail at 1. These are the positive values of
the signed map in its own units.

Above a high threshold the excesses of almost any distribution follow a generalised Pareto (Pickands
1975), so its *shape* says what kind of tail there is:

* 0: exponential;
* above 0: Pareto-like, heavier as it grows (the exponent of the density is 1 + 1/shape), and the
  same at every higher threshold;
* below 0: it ends at a finite value.

Values are counted in bins 1.6 to 3.1 % wide with the mean of each bin, 130 KB however many there
are. Likelihoods use the means, which moves the shape by less than 0.005 as long as the scale is a
quarter of the threshold or more, as it is for token values.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from selector.analysis.jackknife import jackknife

# The bit patterns of positive float32 numbers are ordered as the numbers are: the exponent and the
# first 5 bits of the mantissa make 32 bins per octave over the whole range.
_DROPPED_BITS = 18
NUM_BINS = 0x7F800000 >> _DROPPED_BITS
EDGES = (np.arange(NUM_BINS, dtype=np.uint32) << _DROPPED_BITS).view(np.float32).astype(np.float64)

MIN_TOKENS = 200
"""Smaller tails are not fitted: the shape's standard error would exceed 0.07."""


@dataclass(frozen=True)
class TailFit:
    """Maximum-likelihood fit of a generalised Pareto to the excesses over a threshold.

    Attributes:
        threshold: the tail begins here.
        num_tokens: tokens in the tail.
        shape: see the module.
        scale: of the excesses, in the unit of the values.
        over_exponential: log-likelihood per token gained over the best exponential, in nats. That
            is the special case of shape 0, so never below 0; close to 0 means "exponential".
        over_pareto: the same over the best plain Pareto, x ** -alpha from the threshold on, the
            special case of scale = shape * threshold.
    """

    threshold: float
    num_tokens: int
    shape: float
    scale: float
    over_exponential: float
    over_pareto: float


def count_values(
    values: npt.NDArray[np.float32], groups: npt.NDArray[np.int64], num_groups: int
) -> npt.NDArray[np.float64]:
    """Histogram the positive values of each group; NaN (failed clips) is left out.

    Args:
        values: (clips, ...) in any unit.
        groups: (clips,) group of each clip, 0 to `num_groups` - 1.
        num_groups: how many there are.

    Returns:
        (num_groups, 2, NUM_BINS): number and sum of the values in each bin. May be added up.
    """
    flat = np.ascontiguousarray(values, dtype=np.float32).reshape(len(values), -1)
    positive = flat > 0
    found = flat[positive]
    index = (found.view(np.uint32) >> _DROPPED_BITS).astype(np.int64)
    index += NUM_BINS * np.broadcast_to(groups[:, None], flat.shape)[positive]
    size = num_groups * NUM_BINS
    parts = [np.bincount(index, minlength=size), np.bincount(index, found, minlength=size)]
    return np.stack([part.reshape(num_groups, NUM_BINS) for part in parts], axis=1).astype(float)


def fit_tail(histogram: npt.NDArray[np.float64], share: float) -> TailFit | None:
    """Fit the best `share` of the counted values, or a little less: bins are not split.

    Args:
        histogram: (2, NUM_BINS) of `count_values`.
        share: of the positive values, in (0, 1].

    Returns:
        None with fewer than `MIN_TOKENS` in the tail, or all of them in two bins or one.
    """
    counts, sums = histogram
    above = np.cumsum(counts[::-1])[::-1]
    first = int(np.argmax(above <= share * above[0] * (1 + 1e-12)))
    used = first + np.flatnonzero(counts[first:])
    if above[first] < MIN_TOKENS or len(used) < 3:
        return None
    # Not from the bin's edge where the lowest bins are empty, as they are at share 1.
    threshold = EDGES[used[0]]
    return fit_excesses(sums[used] / counts[used] - threshold, counts[used], float(threshold))


def fit_excesses(
    excess: npt.NDArray[np.float64], weight: npt.NDArray[np.float64], threshold: float
) -> TailFit:
    """Fit by the profile likelihood of Grimshaw (1993).

    Given theta = shape / scale, the best shape is the mean of log(1 + theta * excess), which leaves
    a search along one line. Exponential (theta to 0) and plain Pareto (1 / threshold) lie on it.

    Args:
        excess: values minus the threshold, at least 0.
        weight: how many tokens have each.
        threshold: in the same unit, above 0.
    """
    total, top = weight.sum(), excess.max()
    mean = float(weight @ excess / total)

    def profile(theta: npt.NDArray[np.float64]) -> tuple[npt.NDArray, npt.NDArray]:
        shape = np.log1p(theta[:, None] * excess) @ weight / total
        # Below shape -1 the likelihood has no maximum.
        return shape, np.where(shape > -1, -np.log(shape / theta) - shape - 1, -np.inf)

    theta = np.concatenate(
        [np.linspace(-1 + 1e-9, -0.01, 60) / top, np.geomspace(1e-3, 1e6, 60) / mean]
    )
    for _ in range(6):  # each round looks 10 times closer around the best
        shape, likelihood = profile(theta)
        best = int(np.argmax(likelihood))
        found = theta[best], shape[best], likelihood[best]
        # An even number of points: none is exactly 0, where shape / theta is not defined.
        theta = np.linspace(theta[max(best - 1, 0)], theta[min(best + 1, len(theta) - 1)], 22)
    pareto = profile(np.array([1 / threshold]))[1][0]
    return TailFit(
        threshold=threshold,
        num_tokens=int(total),
        shape=float(found[1]),
        scale=float(found[1] / found[0]),
        over_exponential=max(float(found[2]) + math.log(mean) + 1, 0.0),
        over_pareto=max(float(found[2] - pareto), 0.0),
    )


def shape_interval(histograms: npt.NDArray[np.float64], share: float) -> tuple[float, float]:
    """95 % interval of the shape: the jackknife over groups of videos.

    Each replicate finds its own threshold. On simulated clips that differ about tenfold in scale,
    the hardest case, its standard error is right on average; it covered the truth in 84 % of trials
    with 600 videos, 91 % with 2,000. The percentile bootstrap over the same groups was 10 to 20 %
    narrower.

    Args:
        histograms: (groups, 2, NUM_BINS) of disjoint groups of videos, put together by chance.
        share: as for `fit_tail`.

    Returns:
        Low and high; NaN with too few groups (see `jackknife`), or a tail that is too small without
        one of them.
    """

    def shape(histogram: npt.NDArray[np.float64]) -> float:
        fit = fit_tail(histogram, share)
        return math.nan if fit is None else fit.shape

    return jackknife(shape, histograms)
