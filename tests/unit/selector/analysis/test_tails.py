"""The tail fit finds the shapes that samples were drawn with, from counts alone."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import genpareto

from selector.analysis import tails


def generalised_pareto(rng: np.random.Generator, shape: float, size: int) -> np.ndarray:
    uniform = rng.random(size)
    return -np.log(uniform) if shape == 0 else (uniform**-shape - 1) / shape


def histogram_of(values: np.ndarray) -> np.ndarray:
    return tails.count_values(values[None].astype(np.float32), np.zeros(1, int), 1)[0]


@pytest.mark.parametrize("shape", [-0.2, 0, 0.3, 0.8])
@pytest.mark.parametrize("threshold", [0.1, 1.0, 4.0])
def test_a_known_shape_is_recovered(shape: float, threshold: float):
    excess = generalised_pareto(np.random.default_rng(0), shape, 200_000)
    fit = tails.fit_tail(histogram_of(threshold + excess), 1.0)
    direct = tails.fit_excesses(excess, np.ones(len(excess)), threshold)
    assert fit is not None
    assert fit.shape == pytest.approx(shape, abs=0.015)  # 5 standard errors
    assert fit.scale == pytest.approx(1, abs=0.02)
    assert fit.shape == pytest.approx(direct.shape, abs=0.005)  # what the bins cost
    assert fit.threshold == pytest.approx(threshold, rel=0.032)


@pytest.mark.parametrize("shape", [-0.2, 0, 0.3])
def test_a_higher_threshold_keeps_the_shape(shape: float):
    values = histogram_of(1 + generalised_pareto(np.random.default_rng(1), shape, 1_000_000))
    for share in (0.1, 0.02):
        fit = tails.fit_tail(values, share)
        assert fit is not None
        assert 0.9 * share < fit.num_tokens / 1e6 <= share
        assert fit.shape == pytest.approx(shape, abs=0.04)


def test_the_likelihood_is_the_highest_of_its_family():
    excess = generalised_pareto(np.random.default_rng(2), 0.3, 20_000)
    fit = tails.fit_excesses(excess, np.ones(len(excess)), 1.0)

    def likelihood(shape: float, scale: float) -> float:
        return -math.log(scale) - (1 / shape + 1) * np.log1p(shape * excess / scale).mean()

    best = likelihood(fit.shape, fit.scale)
    for change in (0.99, 1.01):
        assert likelihood(fit.shape * change, fit.scale) < best
        assert likelihood(fit.shape, fit.scale * change) < best
    exponential = -math.log(excess.mean()) - 1
    assert fit.over_exponential == pytest.approx(best - exponential, abs=1e-9)
    hill = np.log1p(excess).mean()
    pareto = -math.log(hill) - (1 / hill + 1) * hill
    assert fit.over_pareto == pytest.approx(best - pareto, abs=1e-9)


def test_the_special_cases_gain_nothing():
    rng = np.random.default_rng(3)
    exponential = tails.fit_tail(histogram_of(0.5 + rng.exponential(1, 200_000)), 1.0)
    pareto = tails.fit_tail(histogram_of(1 + rng.pareto(2, 200_000)), 1.0)
    assert exponential is not None
    assert pareto is not None
    assert 0 <= exponential.over_exponential < 1e-4 < 0.1 < exponential.over_pareto
    assert 0 <= pareto.over_pareto < 1e-4 < 0.1 < pareto.over_exponential
    assert pareto.shape == pytest.approx(0.5, abs=0.02)


def test_the_unit_of_the_values_does_not_matter():
    values = 1 + generalised_pareto(np.random.default_rng(4), 0.2, 50_000)
    fits = [tails.fit_tail(histogram_of(values * unit), 0.1) for unit in (2.0**-30, 1, 2.0**20)]
    shapes = [fit.shape for fit in fits if fit is not None]
    assert shapes == pytest.approx([shapes[0]] * 3, rel=1e-6)


def test_counts_add_up_and_leave_out_what_is_not_positive():
    values = np.random.default_rng(5).normal(size=(40, 2, 3)).astype(np.float32)
    values[3] = np.nan
    values[4] = 0
    groups = np.arange(40) % 3
    counted = tails.count_values(values, groups, 3)
    halves = [
        tails.count_values(values[half], groups[half], 3) for half in np.split(np.arange(40), 2)
    ]
    np.testing.assert_allclose(counted, halves[0] + halves[1], rtol=1e-12)
    for group in range(3):
        own = values[groups == group]
        own = own[own > 0].astype(np.float64)
        assert counted[group, 0].sum() == len(own)
        assert counted[group, 1].sum() == pytest.approx(own.sum())
        edges = np.append(tails.EDGES, np.inf)
        assert np.array_equal(counted[group, 0], np.histogram(own, edges)[0])


@pytest.mark.parametrize("shape", [-0.2, 0.3])
def test_the_fit_is_scipys(shape: float):
    excess = generalised_pareto(np.random.default_rng(3), shape, 5_000)
    theirs, _, scale = genpareto.fit(excess, floc=0)
    fit = tails.fit_excesses(excess, np.ones(len(excess)), 1.0)
    assert (fit.shape, fit.scale) == pytest.approx((theirs, scale), abs=2e-4)


def test_bins_are_narrow_over_the_whole_range():
    normal = tails.EDGES[np.finfo(np.float32).tiny <= tails.EDGES]
    assert np.diff(normal).min() > 0
    assert (np.diff(normal) / normal[:-1]).max() <= 1 / 32


@pytest.mark.parametrize(
    "values",
    [np.empty(0), np.full(10_000, 0.5), np.tile([1.0, 2.0], 5_000), np.linspace(1, 2, 1_000)],
    ids=["none", "constant", "two values", "too few in the tail"],
)
def test_a_tail_that_cannot_be_fitted_is_none(values: np.ndarray):
    assert tails.fit_tail(histogram_of(values), 0.1) is None


def clips_of_unlike_scale(rng: np.random.Generator) -> np.ndarray:
    """Exponential in each of 1,000 clips, with rates from a gamma distribution of shape 4.

    Pooled they are a generalised Pareto of shape 1/4 exactly.
    """
    return (rng.exponential(size=(1000, 200)) / rng.gamma(4, size=(1000, 1))).astype(np.float32)


def test_a_mixture_of_exponential_clips_is_heavy_and_its_interval_knows_that_clips_differ():
    values = clips_of_unlike_scale(np.random.default_rng(6))
    histograms = tails.count_values(values, np.arange(1000) % 50, 50)
    fit = tails.fit_tail(histograms.sum(axis=0), 0.1)
    low, high = tails.shape_interval(histograms, 0.1)
    assert fit is not None
    assert fit.shape == pytest.approx(0.25, abs=0.1)
    assert low < fit.shape < high
    if_independent = 1.96 * (1 + fit.shape) / math.sqrt(fit.num_tokens)
    assert high - low > 2 * 1.8 * if_independent
    relative = values / values.mean(axis=1, keepdims=True)
    within = tails.fit_tail(tails.count_values(relative, np.zeros(1000, int), 1)[0], 0.1)
    assert within is not None
    assert within.shape == pytest.approx(0, abs=0.03)


def test_the_interval_is_that_of_independent_tokens_where_they_are():
    values = 1 + generalised_pareto(np.random.default_rng(7), 0.2, 100_000)
    histograms = tails.count_values(values.reshape(500, 200), np.arange(500) % 50, 50)
    low, high = tails.shape_interval(histograms, 1.0)
    expected = 1.96 * 1.2 / math.sqrt(100_000)  # (1 + shape) / sqrt(n), Smith 1987
    assert (high - low) / 2 == pytest.approx(expected, rel=0.3)


def test_few_groups_or_values_have_no_interval():
    values = np.random.default_rng(8).exponential(size=(40, 100)).astype(np.float32)
    few_groups = tails.count_values(values, np.arange(40) % 4, 50)
    assert np.isnan(tails.shape_interval(few_groups, 0.5)).all()
    few_values = tails.count_values(values, np.arange(40), 50)
    assert np.isnan(tails.shape_interval(few_values, 0.01)).all()
    assert np.isfinite(tails.shape_interval(few_values, 0.5)).all()
