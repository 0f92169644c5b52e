"""Inequality measures agree with textbook cases and with a direct computation on all tokens."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pipeline.store.result import concentration
from selector.analysis import distribution as dist


def counts_of(*values: float) -> np.ndarray:
    return dist.count_scores(np.array(values, dtype=np.float16))


def test_counts_are_exact_additive_and_skip_failed_clips():
    rng = np.random.default_rng(0)
    scores = rng.random((50, 4, 3, 3)).astype(np.float16)
    scores[7] = np.nan
    scores[8, 0] = -0.0
    counts = dist.count_scores(scores)
    values, expected = np.unique(np.abs(scores[~np.isnan(scores)]), return_counts=True)
    assert np.array_equal(dist.VALUES[counts > 0], values.astype(np.float64))
    assert np.array_equal(counts[counts > 0], expected)
    halves = dist.count_scores(scores[:20]) + dist.count_scores(scores[20:])
    assert np.array_equal(counts, halves)


def test_scores_outside_the_range_are_refused():
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\], found 1\.5"):
        dist.count_scores(np.array([0.2, 1.5], dtype=np.float16))


def test_gini_and_top_share_of_known_distributions():
    equal = counts_of(*[0.5] * 10)
    assert dist.gini(equal) == pytest.approx(0)
    assert dist.top_share(equal, 0.1) == pytest.approx(0.1)
    one_holds_all = counts_of(1, *[0] * 9)
    assert dist.gini(one_holds_all) == pytest.approx(0.9)  # (n - 1) / n
    assert dist.top_share(one_holds_all, 0.1) == pytest.approx(1)
    assert math.isnan(dist.gini(counts_of(0, 0)))


def test_the_pooled_gini_of_one_clip_is_the_clips_own():
    scores = np.random.default_rng(4).random((2, 6, 6)).astype(np.float16) ** 4
    _, own = concentration(scores)
    assert dist.gini(dist.count_scores(scores)) == pytest.approx(own, abs=1e-12)


def test_gini_equals_the_mean_difference_formula():
    x = np.random.default_rng(1).pareto(2, 500)
    x = (x / x.max()).astype(np.float16)
    wide = x.astype(np.float64)
    direct = np.abs(wide[:, None] - wide[None]).mean() / (2 * wide.mean())
    assert dist.gini(dist.count_scores(x)) == pytest.approx(direct, rel=1e-6)


def test_lorenz_curve_runs_from_origin_to_one_below_the_diagonal():
    tokens, value = dist.lorenz_curve(counts_of(0, 0.1, 0.1, 0.4, 1))
    assert (tokens[0], value[0], tokens[-1], value[-1]) == (0, 0, 1, 1)
    assert np.all(np.diff(tokens) > 0)
    assert np.all(value <= tokens + 1e-12)


def test_quantile_is_numpys():
    x = np.random.default_rng(2).random(1001).astype(np.float16)
    for q in (0.1, 0.5, 0.9):
        ours = dist.quantile(dist.count_scores(x), q)
        assert ours == pytest.approx(np.quantile(x.astype(float), q, method="inverted_cdf"))


def test_share_from_a_value_counts_it_in():
    assert dist.share_from(counts_of(0, 0.25, 0.5, 1), 0.5) == 0.5
    assert math.isnan(dist.share_from(dist.count_scores(np.empty(0)), 0.5))
