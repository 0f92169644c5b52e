"""How unequal token scores are: Lorenz curve, Gini, top share, quantiles.

Scores are stored as float16 in [0, 1], which has 15,361 different values. Counting how often each
occurs is therefore exact, adds up over shards, and takes 120 KB however many tokens there are.
"""

from __future__ import annotations

import math

import numpy as np

from pipeline.store.result import gini as exact_gini

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


def count_into(counts: np.ndarray, keys: np.ndarray, scores: np.ndarray) -> None:
    """Add the scores of each clip to the row of its key, in place.

    Args:
        counts: int64 (keys, 15361).
        keys: (clips,) rows of `counts`.
        scores: (clips, ...) as `count_scores` takes them.
    """
    for key in np.unique(keys):
        counts[key] += count_scores(scores[keys == key])


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
    return exact_gini(VALUES, counts) if counts.any() else math.nan


def top_share(counts: np.ndarray, fraction: float = 0.1) -> float:
    """Share of all value held by the best `fraction` of the tokens."""
    tokens, value = lorenz_curve(counts)
    if value[-1] == 0:
        return math.nan
    return float(1 - np.interp(1 - fraction, tokens, value))


def share_from(counts: np.ndarray, value: float) -> float:
    """Share of the tokens with a score of at least `value`."""
    total = counts.sum()
    return float(counts[value <= VALUES].sum() / total) if total else math.nan


def quantile(counts: np.ndarray, q: float) -> float:
    """The value below which a share `q` of the tokens lies."""
    cumulative = np.cumsum(counts)
    if cumulative[-1] == 0:
        return math.nan
    rank = max(q * cumulative[-1], 1)  # the smallest value is the quantile 0
    return float(VALUES[np.searchsorted(cumulative, rank)])


def histogram(
    counts: np.ndarray, *, log: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Share of the tokens in bins of their scores.

    Args:
        counts: aligned with `VALUES`.
        log: two bins an octave from 2^-12 to 1, which leave out smaller scores, instead of 50 equal
            bins over [0, 1].

    Returns:
        float64 lower edges, upper edges, and the share of all tokens in [low, high); a score of 1
        belongs to the last bin.
    """
    edges = 2.0 ** (np.arange(-24, 1) / 2) if log else np.linspace(0, 1, 51)
    inside, _ = np.histogram(VALUES, edges, weights=counts)
    return edges[:-1], edges[1:], inside / max(counts.sum(), 1)


def ks_distance(counts: np.ndarray, others: np.ndarray) -> float:
    """Largest gap between two cumulative distributions, in [0, 1]; NaN where one is empty."""
    if not (counts.any() and others.any()):
        return math.nan
    first, second = (np.cumsum(c) / c.sum() for c in (counts, others))
    return float(np.abs(first - second).max())


def superiority(counts: np.ndarray, others: np.ndarray) -> float:
    """Probability that a value of the first is above one of the second, ties counting half.

    The common-language effect size, the area under the ROC curve: 0.5 where neither is higher.
    NaN where one is empty.
    """
    if not (counts.any() and others.any()):
        return math.nan
    second = others / others.sum()
    return float(counts / counts.sum() @ (np.cumsum(second) - second / 2))
