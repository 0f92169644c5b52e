"""How unequal token values are: Lorenz curve, Gini, top share, Pareto tail against exponential.

Scores are stored as float16 in [0, 1], which has 15,361 different values. Counting how often each
occurs is therefore exact, adds up over shards, and takes 120 KB however many tokens there are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

# The float16 bit patterns of 0.0 ... 1.0 are the integers 0 ... 0x3C00, in the same order.
NUM_VALUES = 0x3C00 + 1
VALUES = np.arange(NUM_VALUES, dtype=np.uint16).view(np.float16).astype(np.float64)


def count_scores(scores: np.ndarray) -> np.ndarray:
    """Count each float16 value in [0, 1]; NaN (failed clips) is left out.

    Args:
        scores: any shape, float16 or rounded to it, in [0, 1] or NaN.

    Returns:
        int64 (15361,), aligned with `VALUES`; counts of several arrays may be added.
    """
    flat = np.ascontiguousarray(scores, dtype=np.float16).ravel()
    flat = np.abs(flat[~np.isnan(flat)])  # abs: -0.0 is 0.0 with another bit pattern
    if flat.size and flat.max() > 1:
        raise ValueError(f"scores must lie in [0, 1], found {float(flat.max())}")
    return np.bincount(flat.view(np.uint16), minlength=NUM_VALUES).astype(np.int64)


def lorenz_curve(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cumulative share of tokens, poorest first, and the share of all value they hold.

    Returns:
        Two float64 arrays from 0 to 1, one point per value that occurs, plus the origin.
    """
    seen = counts > 0
    tokens = np.concatenate([[0], np.cumsum(counts[seen])])
    value = np.concatenate([[0.0], np.cumsum(counts[seen] * VALUES[seen])])
    total = value[-1] if value[-1] > 0 else 1.0
    return tokens / max(tokens[-1], 1), value / total


def gini(counts: np.ndarray) -> float:
    """Gini coefficient: 0 when all tokens are worth the same, towards 1 when one holds all."""
    tokens, value = lorenz_curve(counts)
    if value[-1] == 0:
        return math.nan  # no value at all: inequality is undefined
    return float(1 - 2 * np.trapezoid(value, tokens))


def top_share(counts: np.ndarray, fraction: float = 0.1) -> float:
    """Share of all value held by the best `fraction` of the tokens."""
    tokens, value = lorenz_curve(counts)
    if value[-1] == 0:
        return math.nan
    return float(1 - np.interp(1 - fraction, tokens, value))


def quantile(counts: np.ndarray, q: float) -> float:
    """The value below which a share `q` of the tokens lies."""
    cumulative = np.cumsum(counts)
    if cumulative[-1] == 0:
        return math.nan
    rank = max(q * cumulative[-1], 1)  # the smallest value is the quantile 0
    return float(VALUES[np.searchsorted(cumulative, rank)])


@dataclass(frozen=True)
class TailFit:
    """Maximum-likelihood fits of the values above a threshold (Clauset, Shalizi & Newman, 2009).

    Attributes:
        threshold: the tail begins here.
        num_tokens: tokens in the tail.
        alpha: exponent of the Pareto density x ** -alpha; smaller is heavier.
        rate: rate of the shifted exponential.
        log_ratio: mean log-likelihood ratio per token, Pareto over exponential; above 0 the
            Pareto fits better.
        vuong: the ratio's sum over its standard deviation times sqrt(n), a standard normal under
            "both fit equally well". With millions of tokens it is significant either way: read
            the size of `log_ratio`.
    """

    threshold: float
    num_tokens: int
    alpha: float
    rate: float
    log_ratio: float
    vuong: float


def fit_tail(counts: np.ndarray, tail: float = 0.1) -> TailFit | None:
    """Fit the best `tail` share of the positive values; None when fewer than 10 tokens are left.

    Both densities are the plain ones on [threshold, infinity), although scores end at 1: the cut
    falls on both alike, and it is what "Pareto or exponential" means in the paper.
    """
    positive = counts.copy()
    positive[0] = 0
    if positive.sum() == 0:
        return None
    threshold = max(quantile(positive, 1 - tail), float(VALUES[1]))
    use = (threshold <= VALUES) & (positive > 0)
    x, n = VALUES[use], positive[use].astype(np.float64)
    total = n.sum()
    log_excess, excess = np.log(x / threshold), x - threshold
    if total < 10 or (n * excess).sum() == 0:
        return None
    shape = total / (n * log_excess).sum()  # alpha - 1
    rate = total / (n * excess).sum()
    pareto = math.log(shape / threshold) - (shape + 1) * log_excess
    exponential = math.log(rate) - rate * excess
    ratio = pareto - exponential
    mean = float((n * ratio).sum() / total)
    spread = math.sqrt(float((n * (ratio - mean) ** 2).sum() / total))
    return TailFit(
        threshold=threshold,
        num_tokens=int(total),
        alpha=float(shape + 1),
        rate=float(rate),
        log_ratio=mean,
        vuong=mean * math.sqrt(total) / spread if spread > 0 else 0.0,
    )
