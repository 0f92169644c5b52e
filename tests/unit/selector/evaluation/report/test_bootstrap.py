"""Intervals by the bootstrap over videos."""

from __future__ import annotations

import numpy as np
import pytest

from selector.evaluation.report import bootstrap
from selector.evaluation.report.bootstrap import draws, interval, resampled_means


def test_the_interval_of_a_share_is_the_textbooks():
    share, num = 0.3, 2000
    values = (np.arange(num) < share * num).astype(float)[:, None]
    low, high = interval(resampled_means(values))[:, 0]
    half = 1.96 * (share * (1 - share) / num) ** 0.5
    assert (low, high) == pytest.approx((share - half, share + half), abs=0.1 * half)


def test_every_column_sees_the_same_videos():
    values = np.random.default_rng(0).random((50, 1))
    means = resampled_means(np.concatenate([values, values, 2 * values], axis=1), 100)
    np.testing.assert_allclose(means[:, 0], means[:, 1])
    np.testing.assert_allclose(means[:, 2], 2 * means[:, 0])


def test_it_is_the_same_every_time_and_in_pieces_of_any_size(monkeypatch):
    values = np.random.default_rng(0).random((30, 2))
    whole = resampled_means(values, 50)
    monkeypatch.setattr(bootstrap, "_VALUES_AT_ONCE", 7 * 30)
    np.testing.assert_allclose(resampled_means(values, 50), whole, rtol=1e-12)
    assert not np.array_equal(resampled_means(values, 50, seed=1), whole)


def test_weights_sum_to_one():
    weights = np.concatenate(list(draws(17, 20)))
    assert weights.shape == (20, 17)
    np.testing.assert_allclose(weights.sum(1), 1)
