"""Is the tail a power law, and would another law say it as well (Clauset, Shalizi, Newman 2009)?

The cut-off is where a power law fits best: the threshold whose tail has the smallest
Kolmogorov-Smirnov distance from its maximum-likelihood power law. Above it the power law is
compared with an exponential, a log-normal and a power law with an exponential end, each at its own
maximum likelihood, by the log-likelihood ratio per token (Vuong 1989). Tokens of one video are no
independent draws, so the ratio's spread is that between groups of videos.

The power law with an end has the plain one as its special case and can only fit better; a
log-normal comes as close as one likes. So neither ratio can show that the plain power law is
better, only that it is not much worse.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.integrate import simpson
from scipy.optimize import minimize
from scipy.special import log_ndtr, stdtrit

from selector.analysis.jackknife import MIN_GROUPS, jackknife
from selector.analysis.tails import EDGES, MIN_TOKENS

Floats = npt.NDArray[np.float64]

_MIN_BINS = 5
_END = 750.0  # exp(-750) is 0


@dataclass(frozen=True)
class PowerLaw:
    """x ** -exponent above a threshold.

    Attributes:
        threshold: the cut-off, where the tail begins.
        num_tokens: tokens in the tail.
        share: of the positive values that they are.
        exponent: of the density, above 1.
        low: 95 % interval of the exponent, this cut-off given: jackknife over groups of videos.
        high: see `low`.
        distance: Kolmogorov-Smirnov, of the tail from the fit; `1 / sqrt(num_tokens)` or less is
            what chance would give independent tokens.
    """

    threshold: float
    num_tokens: int
    share: float
    exponent: float
    low: float
    high: float
    distance: float


@dataclass(frozen=True)
class Ratio:
    """The power law against another law, above the same cut-off.

    Attributes:
        alternative: `exponential`, `lognormal` or `truncated_power_law`.
        ratio: log-likelihood per token that the power law gains over it, in nats; below 0 = the
            other fits better.
        low: 95 % interval over groups of videos; NaN with too few.
        high: see `low`.
    """

    alternative: str
    ratio: float
    low: float
    high: float


def fit_power_law(by_group: Floats) -> PowerLaw | None:
    """Choose the cut-off and fit.

    Args:
        by_group: (groups, 2, NUM_BINS) of `tails.count_values`.

    Returns:
        None where no tail has `MIN_TOKENS` in 5 bins.
    """
    counts, sums = by_group.sum(axis=0)
    used = np.flatnonzero(counts)
    number, edges = counts[used], EDGES[used]
    above = np.cumsum(number[::-1])[::-1]
    logs = np.log(sums[used] / number)
    best: tuple[float, int, float] | None = None
    for first in range(len(used) - _MIN_BINS + 1):
        if above[first] < MIN_TOKENS or edges[first] <= 0:
            continue
        exponent = _exponent(number[first:], logs[first:] - math.log(edges[first]))
        # At the edges of bins the empirical distribution is exact.
        expected = (edges[first:] / edges[first]) ** (1 - exponent)
        distance = float(np.abs(above[first:] / above[first] - expected).max())
        if best is None or distance < best[0]:
            best = distance, first, exponent
    if best is None:
        return None
    distance, first, exponent = best
    start = used[first]

    def refit(histogram: Floats) -> float:
        some, total = histogram[:, start:]
        seen = some > 0
        return _exponent(some[seen], np.log(total[seen] / some[seen] / EDGES[start]))

    low, high = jackknife(refit, by_group)
    return PowerLaw(
        threshold=float(edges[first]),
        num_tokens=int(above[first]),
        share=float(above[first] / above[0]),
        exponent=exponent,
        low=low,
        high=high,
        distance=distance,
    )


def compare(by_group: Floats, law: PowerLaw) -> list[Ratio]:
    """The power law against each of its alternatives, above its cut-off.

    Args:
        by_group: that `law` was fitted to.
        law: of `fit_power_law`.
    """
    tail = by_group[:, :, law.threshold <= EDGES]
    counts, sums = tail.sum(axis=0)
    seen = counts > 0
    number, x = counts[seen], sums[seen] / counts[seen] / law.threshold
    own = math.log(law.exponent - 1) - law.exponent * np.log(x)
    per_group = tail[:, 0, seen]
    fits: dict[str, Callable[[Floats, Floats], Floats]] = {
        "exponential": _exponential,
        "lognormal": _lognormal,
        "truncated_power_law": _truncated(law.exponent),
    }
    return [Ratio(name, *_vuong(per_group, own - fit(x, number))) for name, fit in fits.items()]


def _exponent(number: Floats, logs: Floats) -> float:
    """Hill's estimate; `logs` are of the values over the threshold."""
    return 1 + float(number.sum() / max(number @ logs, 1e-300))


def _exponential(x: Floats, number: Floats) -> Floats:
    """Log densities at `x`, at least 1, of the best exponential that begins at 1."""
    mean = float(number @ (x - 1) / number.sum())
    return -math.log(mean) - (x - 1) / mean


def _lognormal(x: Floats, number: Floats) -> Floats:
    """Log densities of the best log-normal, cut off below 1."""
    logs = np.log(x)

    def density(parameters: Floats) -> Floats:
        mu, log_sigma = parameters
        sigma = math.exp(log_sigma)
        z = (logs - mu) / sigma
        scale = log_sigma + 0.5 * math.log(2 * math.pi) + float(log_ndtr(mu / sigma))
        found: Floats = -logs - 0.5 * z**2 - scale
        return found

    spread = math.sqrt(number @ logs**2 / number.sum())
    return density(_best(density, number, [[0.0, math.log(spread)], [-5.0, math.log(3 * spread)]]))


def _truncated(exponent: float) -> Callable[[Floats, Floats], Floats]:
    """Log densities of the best x ** -a * exp(-rate * x) above 1; `exponent` is where to begin."""

    def fit(x: Floats, number: Floats) -> Floats:
        logs = np.log(x)

        def density(parameters: Floats) -> Floats:
            a, log_rate = parameters
            if not (-20 < a < 40 and -28 < log_rate < 7):
                return np.full_like(x, -1e6)
            rate = math.exp(log_rate)
            # With x = exp(t), so that few points reach far; -rate keeps the integrand from 0.
            t = np.linspace(0, math.log1p(_END / rate), 2001)
            inside = (1 - a) * t - rate * np.expm1(t)
            top = inside.max()
            norm = top - rate + math.log(simpson(np.exp(inside - top), x=t))
            found: Floats = -a * logs - rate * x - norm
            return found

        found = density(_best(density, number, [[exponent, -9.0], [0.5, -1.0], [exponent, -3.0]]))
        plain = math.log(exponent - 1) - exponent * logs
        # Rate 0, its limit, where the search ends beside it.
        return plain if number @ plain > number @ found else found

    return fit


def _best(density: Callable[[Floats], Floats], number: Floats, starts: list[list[float]]) -> Floats:
    """Parameters of the highest likelihood, by the simplex search from each start."""
    weight = number / number.sum()
    options = {"maxiter": 600, "xatol": 1e-5, "fatol": 1e-10}
    found = [
        minimize(lambda p: -float(weight @ density(p)), s, method="Nelder-Mead", options=options)
        for s in starts
    ]
    best: Floats = min(found, key=lambda result: float(result.fun)).x
    return best


def _vuong(per_group: Floats, gain: Floats) -> tuple[float, float, float]:
    """Mean gain per token, and its 95 % interval from the spread between groups.

    Args:
        per_group: (groups, bins) tokens.
        gain: (bins,) of a token.
    """
    size, total = per_group.sum(axis=1), per_group @ gain
    ratio = float(total.sum() / size.sum())
    num = int((size > 0).sum())
    if num < MIN_GROUPS:
        return ratio, math.nan, math.nan
    between = float(((total - ratio * size) ** 2).sum())
    error = math.sqrt(num / (num - 1) * between) / float(size.sum())
    width = float(stdtrit(num - 1, 0.975)) * error
    return ratio, ratio - width, ratio + width
