"""Which lines are compared with which, and which differences stand when all are judged together."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from pipeline.cli.evaluate_report import echo_summary
from pipeline.errors import ConfigError
from selector.evaluation.report.paired import others
from selector.evaluation.report.summary import summarise
from tests.evaluations import make_evaluation

METHODS = ("random", "uniform", "oracle[embeddings,fem]", "prior-spread[x]")
NUM_VIDEOS = 60
PASSED = ("config", "plan", "shards", "read_shard", "timing", "root")


@pytest.fixture
def evaluation(tmp_path):
    """Right of 60 videos: full 50, random 30, uniform 36 (6 more), oracle 60, prior-spread 30."""
    right = np.zeros((NUM_VIDEOS, 5), bool)
    for column, num in enumerate((50, 30, 36, 60, 30)):
        right[:num, column] = True
    logits = np.where(right[:, :, None], [2, 1], [0, 1])
    return make_evaluation(
        tmp_path,
        logits,
        [0] * NUM_VIDEOS,
        methods=METHODS,
        num_seeds=1,
        selector_digests={"lite[x]": "d"},
        shard_size=64,
    )


def compared(summary):
    return {(pair.method, pair.against) for pair in summary.paired}


def test_by_default_with_the_full_model_random_and_the_prior(evaluation):
    summary = summarise(evaluation, num_draws=100)
    assert summary.against == ("full", "random", "prior-spread[x]")
    expected = {(m, other) for m in METHODS for other in summary.against if m != other}
    assert compared(summary) == expected


def test_with_any_method_of_the_table(evaluation, capsys):
    summary = summarise(evaluation, against=["uniform", METHODS[2]], num_draws=100)
    assert compared(summary) == {
        (m, other) for m in METHODS for other in ("uniform", METHODS[2]) if m != other
    }
    found = {(p.method, p.against): p.difference for p in summary.paired}
    assert found["random", METHODS[2]] == -0.5
    echo_summary(summary)
    head = next(x for x in capsys.readouterr().out.splitlines() if x.startswith("keep"))
    assert "against uniform" in head
    assert "against random" not in head


@pytest.mark.parametrize("asked", [["lite"], ["uniform", "oracle"], []])
def test_what_is_not_in_the_table_is_refused_with_what_is(asked):
    with pytest.raises(ConfigError, match=r"cannot compare with .*the table has full, random"):
        others(asked, METHODS)


def test_what_was_left_out_is_not_compared_with(evaluation):
    with pytest.raises(ConfigError, match="cannot compare with random"):
        summarise(evaluation, without=["random"], against=["random"])
    assert "random" not in summarise(evaluation, without=["random"], num_draws=100).against


def test_a_difference_stands_in_its_family(evaluation, capsys):
    """6 of 60, none against: t = .1 / (.3025 / sqrt 60) = 2.56, p = .013; of three, times two."""
    summary = summarise(evaluation, num_draws=100)
    found = {(p.method, p.against): p for p in summary.paired}
    uniform = found["uniform", "random"]
    assert uniform.p_value == pytest.approx(2 * 0.01303, rel=1e-3)
    assert uniform.stands
    assert found["prior-spread[x]", "random"].p_value == 1
    assert not found["prior-spread[x]", "random"].stands
    echo_summary(summary)
    text = capsys.readouterr().out
    row = text.splitlines()[text.splitlines().index("uniform") + 1]
    assert "+10.0 [" in row
    assert row.split("+10.0")[1].split("]")[1].startswith("*")


def test_the_best_other_method_is_found_for_every_line(evaluation, capsys):
    """An oracle can be no part of a model, so it is no peer, but it has one."""
    summary = summarise(evaluation, against=["best"], num_draws=100)
    found = {p.method: (p.other, p.difference) for p in summary.paired if p.against == "best"}
    assert found == {
        "random": ("uniform", pytest.approx(-0.1)),
        "uniform": ("random", pytest.approx(0.1)),
        "oracle[embeddings,fem]": ("uniform", pytest.approx(0.4)),
        "prior-spread[x]": ("uniform", pytest.approx(-0.1)),
    }
    echo_summary(summary)
    assert "against best" in capsys.readouterr().out


def uneven(tmp_path, spent):
    """Random costs 10, 5 and 2 and is right of 60 videos 60, 48 and 24 times, rlt 45 times."""
    right = np.zeros((NUM_VIDEOS, 4), bool)
    for column, num in enumerate((60, 48, 24, 45)):
        right[:num, column] = True
    return make_evaluation(
        tmp_path,
        np.where(right[:, :, None], [2, 1], [0, 1]),
        [0] * NUM_VIDEOS,
        methods=("random", "rlt"),
        keep_ratios=(1.0, 0.5, 0.2),
        num_seeds=1,
        spent=spent,
        shard_size=64,
    )


def test_what_the_content_decides_is_compared_at_equal_mean_cost(tmp_path, capsys):
    """A mean cost of 4 lies two thirds of the way from 2 to 5: 24 + 2/3 (48 - 24) = 40 videos."""
    summary = summarise(uneven(tmp_path, np.tile([2, 6], 30)), num_draws=100)
    row = next(row for row in summary.table if row.method == "rlt")
    assert (row.keep_ratio, row.num_kept, row.gmacs, row.gmacs_backbone) == (None, 4, 4, 4)
    found = {p.against: p for p in summary.paired if p.method == "rlt"}
    assert found["random"].difference == pytest.approx((45 - 40) / 60)
    assert found["full"].difference == pytest.approx((45 - 60) / 60)
    echo_summary(summary)
    assert "rlt (above 5.8 grey levels, means over the videos)" in capsys.readouterr().out


def test_the_estimate_of_the_mean_cost_widens_the_interval(tmp_path):
    """The mixture moves with the cost of the videos that happen to be drawn."""
    width = {}
    for name, spent in (("alike", np.full(60, 4)), ("apart", np.tile([1, 7], 30))):
        summary = summarise(uneven(tmp_path / name, spent), num_draws=400)
        pair = next(p for p in summary.paired if (p.method, p.against) == ("rlt", "random"))
        assert pair.difference == pytest.approx((45 - 40) / 60)
        width[name] = pair.high - pair.low
    assert width["apart"] > 1.1 * width["alike"]


def test_what_costs_less_than_any_budget_has_no_equal(tmp_path):
    summary = summarise(uneven(tmp_path, np.full(60, 1)), num_draws=100)
    assert {p.against for p in summary.paired if p.method == "rlt"} == {"full"}


def test_what_needs_the_full_model_to_decide_is_no_peer(tmp_path):
    """Attention is right more often than random, and costs twice the full model."""
    right = np.zeros((NUM_VIDEOS, 4), bool)
    for column, num in enumerate((50, 30, 45, 20)):
        right[:num, column] = True
    evaluation = make_evaluation(
        tmp_path,
        np.where(right[:, :, None], [2, 1], [0, 1]),
        [0] * NUM_VIDEOS,
        methods=("random", "attention", "uniform"),
        num_seeds=1,
        shard_size=64,
    )
    info = replace(evaluation.info, gmacs=(10.0, 5.0, 15.0, 5.0))
    monkey = SimpleNamespace(info=info, **{n: getattr(evaluation, n) for n in PASSED})
    summary = summarise(monkey, against=["best"], num_draws=100)
    best = {p.method: p.other for p in summary.paired}
    assert best == {"random": "uniform", "attention": "random", "uniform": "random"}
