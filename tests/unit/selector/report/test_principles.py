"""Verdicts on the five principles, from rows whose answer is known."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from selector.evaluation.report.paired import PairedDifference
from selector.evaluation.report.steering import Steering
from selector.report.principles import (
    FAILS,
    HOLDS,
    IN_PART,
    OPEN,
    cues_do_not_help,
    dropping_helps,
    easy_needs_less,
    few_tokens_hold_most,
    random_is_hard_to_beat,
    verdicts,
)

UP, DOWN, LEVEL = 0.05, -0.05, 0.0
WIDE = 1e-9
"""Of too few videos: level, but anywhere within 20 points."""


def pair(method: str, difference: float, against: str = "random", ratio: float = 0.5):
    return PairedDifference(
        method=method,
        keep_ratio=ratio,
        against=against,
        other=against,
        difference=difference,
        low=difference - (0.2 if difference == WIDE else 0.01),
        high=difference + (0.2 if difference == WIDE else 0.01),
        p_value=0.001 if difference in (UP, DOWN) else 0.8,
    )


def summary(*pairs: PairedDifference, classes=(), steering=(), adaptive=(), num_videos=900):
    return SimpleNamespace(
        paired=list(pairs),
        classes=list(classes),
        steering=list(steering),
        adaptive=[SimpleNamespace(method=name) for name in adaptive],
        num_videos=num_videos,
    )


@pytest.mark.parametrize(
    ("gaps", "verdict"),
    [
        ({"tome": DOWN, "uniform": LEVEL}, HOLDS),
        ({"tome": DOWN, "uniform": UP}, IN_PART),
        ({"tome": UP, "uniform": UP, "motion": DOWN}, FAILS),
        # What was trained, or sees the label, is no rival; nor is another draw by chance.
        ({"lite": UP, "oracle[embeddings,gradcam]": UP, "random-tube": UP, "tome": DOWN}, HOLDS),
        ({"lite": UP}, OPEN),
        ({"tome": DOWN, "uniform": WIDE}, OPEN),
        ({"tome": UP, "uniform": WIDE, "motion": DOWN}, IN_PART),
    ],
)
def test_random(gaps: dict[str, float], verdict: str):
    found = random_is_hard_to_beat(summary(*(pair(name, gap) for name, gap in gaps.items())))
    assert found.verdict == verdict
    if gaps.get("uniform") == UP:
        assert "uniform (up to +5.0 points [+4.0, +6.0] at 0.5)" in " ".join(found.because)
    if gaps == {"lite": UP}:
        assert "lite-pipeline evaluate" in found.because[0]


def test_an_adaptive_budget_is_no_rival():
    rows = summary(pair("tome", DOWN), pair("lite++", UP), adaptive=["lite++"])
    assert random_is_hard_to_beat(rows).verdict == HOLDS


@pytest.mark.parametrize(
    ("gaps", "verdict"),
    [
        ({"attention": LEVEL, "motion": DOWN}, HOLDS),
        ({"attention": UP, "motion": DOWN}, IN_PART),
        ({"attention[blocks.-1]": UP}, FAILS),
        ({"uniform": UP}, OPEN),
        ({"attention": WIDE, "motion": DOWN}, OPEN),
    ],
)
def test_cues(gaps: dict[str, float], verdict: str):
    assert cues_do_not_help(summary(*(pair(n, g) for n, g in gaps.items()))).verdict == verdict


def test_dropping_tokens():
    def judged(label: float, guessed: float | None, *steering: Steering):
        rows = [pair("oracle[blocks.5.output,gradcam]", label, "full")]
        if guessed is not None:
            rows.append(pair("oracle-predicted[blocks.5.output,gradcam]", guessed, "full"))
        return dropping_helps(summary(*rows, steering=steering))

    assert judged(UP, UP).verdict == HOLDS
    assert judged(UP, DOWN).verdict == IN_PART
    alone = judged(UP, None)
    assert alone.verdict == IN_PART
    assert "oracle-second, was not evaluated" in alone.because[-1]
    assert judged(DOWN, None).verdict == FAILS
    assert judged(WIDE, None).verdict == judged(LEVEL, None).verdict == OPEN
    assert dropping_helps(None).verdict == dropping_helps(summary()).verdict == OPEN
    control = Steering(
        method="oracle-second[blocks.5.output,gradcam]",
        keep_ratio=0.5,
        num_right=(40, 200),
        flipped=(30, 50),
        num_second=(8, 20),
        repaired=(8, 15),
    )
    assert "25 % of 200 right" in judged(UP, None, control).because[-1]
    assert "75 % of 20 wrong" in judged(UP, None, control).because[-1]


FEW, MANY, UNKNOWN = (0.7, 0.68, 0.72), (0.2, 0.18, 0.22), (0.6, 0.2, 0.9)


def analysed(*shapes: tuple[float, float], trend=None, share=FEW, others=()):
    tails = [
        {"values": "relative", "share": 0.1, "shape": sum(s) / 2, "shape_low": s[0]}
        | {"shape_high": s[1]}
        for s in shapes
    ]
    trends = [] if trend is None else [("half_share", 9, sum(trend) / 2, *trend)]
    shares = [("videos", np.nan, "top10_share", *share), ("videos", 0, "top10_share", 0, 0, 0)]
    named = ["values", "alternative", "low", "high"]
    return SimpleNamespace(
        tails=pd.DataFrame(tails),
        trends=pd.DataFrame(trends, columns=["measure", "num_classes", "spearman", "low", "high"]),
        shares=pd.DataFrame(shares, columns=["over", "label", "measure", "value", "low", "high"]),
        alternatives=pd.DataFrame(others, columns=named),
    )


@pytest.mark.parametrize(
    ("shapes", "share", "verdict"),
    [
        ([(0.1, 0.2), (0.1, 0.3)], FEW, HOLDS),
        ([(0.1, 0.2), (-0.1, 0.3)], FEW, IN_PART),
        ([(-0.3, -0.2)], FEW, IN_PART),
        ([(0.1, 0.2)], MANY, IN_PART),
        ([(-0.3, 0.2)], MANY, FAILS),
        ([], FEW, IN_PART),
        ([], MANY, FAILS),
        ([(-0.3, 0.2)], UNKNOWN, OPEN),
        ([(0.1, 0.2), (-0.3, -0.2)], UNKNOWN, FAILS),
        ([], UNKNOWN, OPEN),
    ],
)
def test_pareto(shapes, share: tuple[float, float, float], verdict: str):
    found = few_tokens_hold_most(analysed(*shapes, share=share))
    assert found.verdict == verdict
    assert f"{100 * share[0]:.1f} % of its value" in found.because[0]


def test_what_a_power_law_is_compared_with():
    others = [
        ("relative", "exponential", 0.1, 0.2),
        ("relative", "truncated_power_law", -0.2, -0.1),
        ("relative", "lognormal", -0.2, 0.1),
        ("raw", "exponential", -0.2, -0.1),
    ]
    said = few_tokens_hold_most(analysed((0.1, 0.2), others=others)).because
    assert [line.split(" fits ")[1] for line in said[2:]] == [
        "better than exponential.",
        "worse than truncated power law.",
        "neither clearly better nor worse than lognormal.",
    ]


def trend(low: float, high: float):
    return SimpleNamespace(
        method="random",
        keep_ratio=0.5,
        spearman=(low + high) / 2,
        spearman_low=low,
        spearman_high=high,
        class_ids=tuple(range(10)),
    )


BELOW, ACROSS, ABOVE = (-0.8, -0.2), (-0.5, 0.3), (0.1, 0.6)


@pytest.mark.parametrize(
    ("tail", "loss", "verdict"),
    [
        (BELOW, BELOW, HOLDS),
        (BELOW, ACROSS, IN_PART),
        (ACROSS, BELOW, IN_PART),
        (ACROSS, ACROSS, OPEN),
        (ABOVE, ACROSS, FAILS),
        (ABOVE, BELOW, IN_PART),
        ((float("nan"), float("nan")), None, OPEN),
        (BELOW, None, IN_PART),
        (ACROSS, None, OPEN),
        (None, None, OPEN),
    ],
)
def test_easy_videos(tail, loss, verdict: str):
    classes = [] if loss is None else [trend(*loss)]
    found = easy_needs_less(analysed(trend=tail), summary(classes=classes))
    assert found.verdict == verdict
    few = easy_needs_less(analysed(trend=tail), summary(classes=classes, num_videos=70))
    assert ("only 7 videos a class" in " ".join(few.because)) == (loss is not None)


def test_nothing_at_all():
    found = verdicts(None, None)
    assert [verdict.number for verdict in found] == [1, 2, 3, 4, 5]
    assert {verdict.verdict for verdict in found} == {OPEN}
    assert all(verdict.because for verdict in found)
