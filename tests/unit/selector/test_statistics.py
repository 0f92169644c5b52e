"""Statistics against SciPy's, against the textbook's, and where the bootstrap knows nothing."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import optimize, stats

from selector import statistics
from selector.statistics import (
    draws,
    holm,
    interval,
    mean_interval,
    paired_loss_bound,
    paired_p_values,
    spearman,
    wilson,
)


def share_of(right: int, num: int) -> np.ndarray:
    return (np.arange(num) < right).astype(float)[:, None]


def test_the_rank_correlation_is_scipys_with_ties_and_without():
    rng = np.random.default_rng(2)
    x = rng.integers(0, 9, (4, 50)).astype(float)
    y = x + rng.integers(0, 9, (4, 50))
    y[3] = rng.random(50)
    expected = [stats.spearmanr(a, b).statistic for a, b in zip(x, y, strict=True)]
    np.testing.assert_allclose(spearman(x, y), expected, rtol=1e-12)


def test_a_constant_orders_nothing():
    line, flat = np.arange(8.0)[None], np.ones((1, 8))
    assert np.isnan([spearman(flat, line), spearman(line, flat)]).all()


def test_the_interval_of_a_share_is_the_textbooks():
    share, num = 0.3, 2000
    low, high = mean_interval(share_of(600, num))[:, 0]
    half = 1.96 * (share * (1 - share) / num) ** 0.5
    assert (low, high) == pytest.approx((share - half, share + half), abs=0.1 * half)


def test_the_interval_of_a_mean_is_that_of_scipys_bootstrap():
    values = np.random.default_rng(1).gamma(0.5, size=300)
    found = mean_interval(values[:, None], (0, 10), num_draws=20_000)[:, 0]
    theirs = stats.bootstrap(
        (values,), np.mean, method="percentile", n_resamples=20_000, random_state=3
    ).confidence_interval
    half = (theirs.high - theirs.low) / 2
    assert found == pytest.approx([theirs.low, theirs.high], abs=0.04 * half)


def test_every_column_sees_the_same_videos():
    values = np.random.default_rng(0).random((50, 1))
    found = mean_interval(np.concatenate([values, values, 2 * values], axis=1), num_draws=100)
    np.testing.assert_allclose(found[:, 0], found[:, 1])
    np.testing.assert_allclose(found[:, 2], 2 * found[:, 0])


def test_it_is_the_same_every_time_and_in_pieces_of_any_size(monkeypatch):
    values = np.random.default_rng(0).random((30, 2))
    whole = mean_interval(values, num_draws=50)
    monkeypatch.setattr(statistics, "_VALUES_AT_ONCE", 7 * 30)
    np.testing.assert_allclose(mean_interval(values, num_draws=50), whole, rtol=1e-12)
    assert not np.array_equal(mean_interval(values, num_draws=50, seed=1), whole)


def test_weights_sum_to_one():
    weights = np.concatenate(list(draws(17, 20)))
    assert weights.shape == (20, 17)
    np.testing.assert_allclose(weights.sum(1), 1)


GROUPS = np.array([*"aaaaabbcddddddeffgh" * 9], object)
GROUPS += np.repeat([f"{i}" for i in range(9)], 19).astype(object)
ALIKE = np.random.default_rng(4).normal(0.3, 1, 72)[
    np.unique(GROUPS.astype(str), return_inverse=True)[1]
]
"""One value for all videos of a group, 72 groups of 1 to 6 videos."""


def test_the_interval_over_groups_is_scipys_bootstrap_of_their_sums():
    number = np.unique(GROUPS.astype(str), return_inverse=True)[1]
    sums, sizes = np.bincount(number, ALIKE), np.bincount(number)
    theirs = stats.bootstrap(
        (sums, sizes),
        lambda total, size, axis: total.sum(axis) / size.sum(axis),
        paired=True,
        method="percentile",
        n_resamples=5000,
        random_state=3,
    ).confidence_interval
    low, high = mean_interval(ALIKE[:, None], (-9, 9), 5000, groups=GROUPS)[:, 0]
    half = (theirs.high - theirs.low) / 2
    assert (low, high) == pytest.approx((theirs.low, theirs.high), abs=0.05 * half)
    low, high = mean_interval(ALIKE[:, None], (-9, 9), 5000)[:, 0]
    assert (high - low) / 2 < 0.7 * half  # as if all 171 videos told something new


def test_the_test_over_groups_is_the_textbooks_on_their_sums():
    sums = [ALIKE[group == GROUPS].sum() for group in dict.fromkeys(GROUPS)]
    found = paired_p_values(ALIKE[:, None], GROUPS)
    assert found == pytest.approx([stats.ttest_1samp(sums, 0).pvalue])
    assert paired_p_values(ALIKE[:, None])[0] < found[0] / 5


def test_equal_outcomes_of_few_groups_are_as_uncertain_as_few_videos():
    groups = np.repeat(["a", "b", "c"], 20).astype(object)
    few = mean_interval(share_of(3, 3))
    np.testing.assert_allclose(mean_interval(share_of(60, 60), groups=groups), few)


def test_rounding_is_no_difference():
    noise = np.random.default_rng(0).normal(0, 1e-17, (50, 1))
    np.testing.assert_allclose(mean_interval(noise, (-1, 1)), mean_interval(0 * noise, (-1, 1)))
    assert paired_p_values(noise) == [1.0]


def test_groups_that_are_alike_are_as_uncertain_as_as_many_equal_videos():
    """Each of 40 groups has one clip right and one wrong: no resample of groups moves the mean."""
    values, groups = np.tile([[0.0], [1.0]], (40, 1)), np.repeat([*map(str, range(40))], 2)
    unseen = stats.binomtest(0, 40).proportion_ci(method="wilson").high
    found = mean_interval(values, groups=groups.astype(object))[:, 0]
    assert found == pytest.approx([0.5 - 0.5 * unseen, 0.5 + 0.5 * unseen])


@pytest.mark.parametrize(("right", "num"), [(0, 1), (1, 1), (12, 12), (0, 40), (7, 20), (500, 501)])
def test_wilsons_bound_is_scipys(right, num):
    theirs = stats.binomtest(right, num).proportion_ci(method="wilson")
    assert wilson(right, num) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


@pytest.mark.parametrize("num", [1, 2, 12, 500])
@pytest.mark.parametrize("right", [0, 1])
def test_equal_outcomes_are_not_certain(num, right):
    """The bootstrap alone would say that the share is 0 or 1, exactly."""
    theirs = stats.binomtest(right * num, num).proportion_ci(method="wilson")
    found = mean_interval(share_of(right * num, num))[:, 0]
    assert found == pytest.approx([theirs.low, theirs.high])


def test_an_equal_difference_may_be_other_videos_win_or_loss():
    """Of 10 videos without a difference Wilson allows for a share of 0.278 that have one."""
    unseen = stats.binomtest(0, 10).proportion_ci(method="wilson").high
    assert unseen == pytest.approx(0.2775, abs=1e-4)
    none, all_won = mean_interval(np.repeat([[0.0, 1.0]], 10, axis=0), (-1, 1)).T
    assert none == pytest.approx([-unseen, unseen])
    assert all_won == pytest.approx([1 - 2 * unseen, 1])


def test_a_statistic_that_no_resample_moves_has_no_interval():
    moves = np.random.default_rng(0).random((100, 1))
    samples = np.concatenate([moves, np.ones((100, 1)), np.full((100, 1), np.nan)], axis=1)
    samples[:50, 1] = np.nan
    low, high = interval(samples)
    assert (low[0], high[0]) == pytest.approx(np.quantile(moves, [0.025, 0.975]))
    assert np.isnan([low[1:], high[1:]]).all()


def test_holm_is_the_textbooks_step_down():
    """By hand: 4 x .01, 3 x .02 = .06, then the larger of .06 and 2 x .025, and .9."""
    found = holm(np.array([0.02, 0.9, 0.01, 0.025]))
    np.testing.assert_allclose(found, [0.06, 0.9, 0.04, 0.06])
    assert holm(np.array([0.6, 0.7])).max() == 1


def test_p_values_are_of_the_paired_t_test_and_of_signs_where_all_are_equal():
    gaps = np.zeros((20, 4))
    gaps[:7, 0], gaps[:, 1], gaps[:10, 3], gaps[10:, 3] = 1, -1, 1, -1
    found = paired_p_values(gaps)
    t = 0.35 / np.sqrt(0.35 * 0.65 / 19)
    expected = [2 * stats.t.sf(t, 19), stats.binomtest(0, 20).pvalue, 1, 1]
    np.testing.assert_allclose(found, expected, rtol=1e-9)


@pytest.mark.parametrize(("flips", "repairs", "num"), [(12, 2, 50), (3, 0, 200), (1, 4, 80)])
def test_the_loss_bound_is_where_the_score_test_begins_to_refuse(flips, repairs, num):
    """The nuisance share by a search for the greatest likelihood, not by the closed form."""
    bound = float(paired_loss_bound(flips, repairs, num, 1.645))

    def minus_log_likelihood(repaired):
        same = num - flips - repairs
        return -(
            flips * np.log(repaired + bound)
            + repairs * np.log(repaired)
            + same * np.log(1 - 2 * repaired - bound)
        )

    repaired = optimize.minimize_scalar(
        minus_log_likelihood, bounds=(1e-9, (1 - bound) / 2 - 1e-9), method="bounded",
        options={"xatol": 1e-10},
    ).x  # fmt: skip
    variance = num * (2 * repaired + bound - bound**2)
    assert (num * bound - (flips - repairs)) / np.sqrt(variance) == pytest.approx(1.645, abs=2e-3)


def test_the_loss_bound_without_a_flip_is_not_zero_and_without_certainty_the_estimate():
    assert float(paired_loss_bound(0, 0, 100, 2.0)) == pytest.approx(4 / 104)
    assert float(paired_loss_bound(3, 1, 100, 0.0)) == 0.02
