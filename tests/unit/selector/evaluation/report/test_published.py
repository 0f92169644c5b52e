"""The paper's tables beside ours: the right line, at the right budget, or none."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from pipeline.cli import app
from selector.evaluation.report.published import PUBLISHED, beside, budgets
from selector.evaluation.report.table import TableRow
from tests.evaluations import make_lite_evaluation


def row(method, keep_ratio, gmacs=1.0):
    return TableRow(
        method=method,
        keep_ratio=keep_ratio,
        num_kept=1,
        gmacs=gmacs,
        gmacs_backbone=gmacs,
        clips_per_s=None,
        **dict.fromkeys(("top1", "top1_low", "top1_high", "top5"), 0.5),
        **dict.fromkeys(("difference", "difference_low", "difference_high"), 0.0),
        top1_per_seed=(0.5,),
    )


def ours(number, rows):
    return {line.model: found for line, found in beside(number, rows) if found is not None}


def test_lines_of_the_same_method_and_budget_stand_together():
    rows = [
        row("full", 1.0, 180.3),
        row("lite[ssv2]", 0.5),
        row("lite[ssv2]++", 0.5),
        row("lite[ssv2]++ cascade", 0.5),
        row("lite-spread", 0.7),
        row("lite+tome", 0.5, 86.0),
    ]
    assert ours(1, rows) == {"VideoMAE": rows[0], "LITE, P = 0.5": rows[1]}
    assert ours(4, rows) == {"LITE, P = 0.5": rows[1], "LITE++ from 0.5": rows[2]}


@pytest.mark.parametrize("full", [180.3, 0.2973])
def test_a_method_without_a_ratio_stands_beside_its_nearest_share_of_all_tokens_cost(full):
    """ToMe's 86 and STA's 116 of 181; what is more than 3 % away is another model."""
    rows = [
        row("full", 1.0, full),
        row("tome", 0.9, full * 120.0 / 181),
        row("tome", 0.6, full * 85.2 / 181),
        row("tome", 0.5, full * 83.3 / 181),
        row("sta", 0.5, full * 120 / 181),
    ]
    assert ours(1, rows) == {"VideoMAE": rows[0], "ToMe": rows[2]}
    assert ours(1, rows[1:]) == {}  # without all tokens no share is known
    assert budgets(1, rows) == pytest.approx([full * 116 / 181, full * 86 / 181])
    assert budgets(1, []) == [116, 86]


@pytest.mark.parametrize(
    ("number", "costs"),
    [
        (1, (158.4, 117.2, 79.8, 45.8)),
        (2, (158.4, 117.2, 79.8, 45.8)),
        (6, (157.6, 116.4, 79.0, 45.0, 14.7)),
    ],
)
def test_the_numbers_are_those_of_the_closed_form(number, costs):
    """What was typed wrong would stand out: the printed costs are 0.4 % above it, rounded."""
    lite = [line for line in PUBLISHED[number][1] if line.method == "lite"]
    for line, cost in zip(lite, costs, strict=True):
        assert abs(line.gflops - 1.0036 * cost) < 1
    top1 = [line.top1 for line in lite]
    assert top1 == sorted(top1, reverse=True)


def test_it_is_shown_and_is_in_the_json(tmp_path):
    make_lite_evaluation(tmp_path, num_videos=40)
    arguments = ["evaluate", "--table-only", "--out", str(tmp_path), "--published", "1"]
    shown = CliRunner().invoke(app, arguments)
    assert shown.exit_code == 0
    lines = shown.output.splitlines()
    found = next(line for line in lines if line.startswith("LITE, P = 0.5"))
    assert "69.91" in found
    assert "100.0" in found
    assert "69.63" in next(line for line in lines if line.startswith("ToMe"))
    content = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).output)["published"]
    of_half = next(line for line in content if line["keep_ratio"] == 0.5)
    assert (of_half["top1"], of_half["ours"]["top1"]) == (69.91, 1.0)
    assert np.isclose(of_half["ours"]["gmacs"], 6)


def test_a_table_that_there_is_not_is_refused_before_the_work(tmp_path):
    arguments = [
        "evaluate",
        "--data-root",
        "nowhere",
        "--out",
        str(tmp_path / "x"),
        "--published",
        "5",
    ]
    refused = CliRunner().invoke(app, arguments)
    assert refused.exit_code != 0
