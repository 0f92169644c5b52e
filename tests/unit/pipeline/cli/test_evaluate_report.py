"""What `evaluate` prints fits a terminal of 80 columns, and a pipe gets all of it."""

from __future__ import annotations

import numpy as np
import pytest
from typer.testing import CliRunner

from pipeline.cli import app, output
from tests.evaluations import make_evaluation

METHODS = ("random", "oracle[blocks.-1.output,gradcam]", "lite", "lite[a-longer-name]")
RATIOS = (1.0, 0.5, 0.3, 0.2)
NUM_VIDEOS = 40


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory):
    rng = np.random.default_rng(0)
    columns = 1 + 3 * (2 + 1 + 1 + 1)  # `random` has two seeds
    labels = [i % 4 for i in range(NUM_VIDEOS)]
    logits = rng.normal(size=(NUM_VIDEOS, columns, 4))
    logits[np.arange(NUM_VIDEOS), :, labels] += 2  # mostly right
    folder = tmp_path_factory.mktemp("evaluation")
    make_evaluation(
        folder,
        logits,
        labels,
        failed=[(3, 5)],
        mass=np.full((NUM_VIDEOS, columns), 0.5),
        methods=METHODS,
        keep_ratios=RATIOS,
        selector_digests={method: method for method in METHODS if method.startswith("lite")},
        shard_size=64,
    )
    return str(folder)


def shown(evaluation, *options):
    result = CliRunner().invoke(app, ["evaluate", "--out", evaluation, "--table-only", *options])
    assert result.exit_code == 0, result.output
    return result.stdout.splitlines()


def test_a_pipe_gets_every_column(evaluation):
    lines = shown(evaluation)
    titles = "keep tokens GFLOPs alone clips/s top-1 % top-5 % against full against random"
    head = next(line for line in lines if line.split()[:1] == ["keep"])
    assert " ".join(head.split()) == titles
    assert "(too narrow" not in "\n".join(lines)
    for method in METHODS:
        assert any(line.startswith(method) for line in lines)
    row = lines[lines.index("lite") + 1].split()
    assert row[:4] == ["0.5", "5", "6", "5"]  # `make_info`: five tokens, and one for the selector


def test_a_terminal_of_80_columns_shows_it_whole(evaluation, monkeypatch):
    monkeypatch.setattr(output.settings, "width", 80)
    lines = shown(evaluation)
    assert max(map(len, lines)) <= 80
    head = next(line for line in lines if line.split()[:1] == ["keep"])
    for title in ("GFLOPs", "top-1 %", "against full", "against random"):
        assert title in head
    # A row is one line: what is folded would be hard to read.
    row = lines[lines.index("lite") + 1]
    assert row.count("[") == row.count("]") == 3
    assert lines[lines.index("lite") + 2].split()[0] == "0.3"


def test_brief_is_a_part_of_the_first_table(evaluation):
    whole, brief = shown(evaluation), shown(evaluation, "--brief")
    rows = [line for line in brief if line.split()[0] in {"1", "0.5", "0.3", "0.2"}]
    assert [row.split()[0] for row in rows] == ["1"] + ["0.5", "0.3"] * len(METHODS)
    assert set(rows) <= set(whole)
    assert brief[0].split()[0] == "keep"
    assert len(brief) == 1 + 1 + len(METHODS) + len(rows)  # head, full, methods


def test_brief_without_the_usual_ratios_shows_what_there_is(tmp_path):
    logits = np.random.default_rng(0).normal(size=(6, 2, 3))
    make_evaluation(tmp_path, logits, [0] * 6, methods=("uniform",), keep_ratios=(1.0, 0.7))
    assert [line.split()[0] for line in shown(str(tmp_path), "--brief")][-2:] == ["uniform", "0.7"]
