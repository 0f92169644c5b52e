"""Principle 5 on outcomes made to show it, or its opposite."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.cli.evaluate_report import plain_span
from selector.evaluation.report.classes import class_trends
from selector.evaluation.report.table import Entry

PER_CLASS = 100


def entry(method, accuracies, keep_ratio=0.5):
    right = np.concatenate([np.arange(PER_CLASS) < round(a * PER_CLASS) for a in accuracies])
    right = right.astype(float)[:, None]
    return Entry(
        method=method,
        keep_ratio=keep_ratio,
        num_kept=1,
        gmacs=1.0,
        gmacs_backbone=1.0,
        clips_per_s=None,
        top1=right,
        top5=right,
    )


FULL = [0.3, 0.5, 0.7, 0.9]
LABELS = np.repeat([2, 3, 5, 7], PER_CLASS)  # classes 0, 1, 4, 6 have no video


def test_easy_classes_that_lose_less_give_a_negative_trend():
    lines = [
        entry("full", FULL, 1.0),
        entry("random", [0.0, 0.3, 0.6, 0.9]),
        entry("uniform", [0.3, 0.4, 0.5, 0.6]),
        entry("random", [0.0, 0.0, 0.0, 0.0], 0.1),
    ]
    random, uniform = class_trends(lines, LABELS, num_draws=300)
    assert (random.method, uniform.method) == ("random", "uniform")
    assert random.class_ids == (2, 3, 5, 7)
    assert random.accuracy == pytest.approx(FULL)
    assert random.drop == pytest.approx((0.3, 0.2, 0.1, 0.0))
    assert random.spearman == pytest.approx(-1)
    assert random.slope == pytest.approx(-0.5)
    assert random.slope_low < -0.5 < random.slope_high < 0
    assert (uniform.spearman, uniform.slope) == pytest.approx((1, 0.5))


def test_a_class_that_a_resample_misses_does_not_spoil_the_interval():
    lines = [entry("full", FULL, 1.0), entry("random", [0.0, 0.3, 0.6, 0.9])]
    rare = np.r_[LABELS, [9]]
    lines = [
        Entry(**{**vars(line), "top1": np.r_[line.top1, [[1.0]]], "top5": line.top5})
        for line in lines
    ]
    (trend,) = class_trends(lines, rare, num_draws=300)
    assert np.isfinite([trend.spearman_low, trend.spearman_high, trend.slope_low]).all()


def test_a_trend_that_no_resample_moves_has_no_interval():
    """Every video of a class is alike, so every resample that has all classes is the same."""
    certain = [0.0, 0.0, 1.0, 1.0]
    lines = [entry("full", certain, 1.0), entry("random", [0.0, 0.0, 0.0, 1.0])]
    (trend,) = class_trends(lines, LABELS, num_draws=100)
    assert np.isfinite(trend.spearman)
    assert np.isnan([trend.spearman_low, trend.spearman_high, trend.slope_low]).all()
    assert plain_span(trend.spearman, trend.spearman_low, trend.spearman_high) == "+0.58 [unknown]"


def test_a_method_that_loses_nothing_orders_no_classes():
    lines = [entry("full", FULL, 1.0), entry("random", FULL)]
    (trend,) = class_trends(lines, LABELS, num_draws=100)
    assert (trend.spearman, trend.slope) == (0, 0)


@pytest.mark.parametrize("labels", [np.zeros(400, int), np.arange(400) % 2])
def test_no_trend_over_one_or_two_classes(labels):
    lines = [entry("full", FULL, 1.0), entry("random", FULL)]
    assert class_trends(lines, labels) == []


def test_no_trend_where_the_ratio_was_not_evaluated():
    lines = [entry("full", FULL, 1.0), entry("random", FULL, 0.3)]
    assert class_trends(lines, LABELS) == []
