"""The table as a file: every number of it, and rows for a paper."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from pipeline.cli import app
from selector.evaluation.report.export import escape_latex, table_frame
from selector.evaluation.report.summary import summarise
from tests.evaluations import make_evaluation

VIDEOS = 100


def evaluated(folder: Path):
    """Of 100 videos of one of 8 classes the full model has 80 right, random 40 at 0.5."""
    logits = np.zeros((VIDEOS, 2, 8))
    logits[:, :, 1] = 1
    logits[:80, 0, 0] = logits[:40, 1, 0] = 2
    methods = ("random",)
    return make_evaluation(folder, logits, [0] * VIDEOS, methods=methods, num_seeds=1)


def test_numbers_by_hand(tmp_path: Path):
    frame = table_frame(summarise(evaluated(tmp_path))).set_index("method")
    full, random = frame.loc["full"], frame.loc["random"]
    assert (full["top1"], random["top1"]) == (0.8, 0.4)
    assert (full["gmacs"], random["gmacs"], random["num_kept"]) == (10, 5, 5)
    assert random["against_full"] == pytest.approx(-0.4)
    assert np.isnan(full["against_full"])
    assert np.isnan(random["against_random"])
    # Of the normal approximation: 1.96 sqrt(0.24 / 100), both for 0.4 and for a loss of 0.4.
    for name, middle in (("top1", 0.4), ("against_full", -0.4)):
        assert random[f"{name}_high"] - middle == pytest.approx(0.096, abs=0.02)
        assert middle - random[f"{name}_low"] == pytest.approx(0.096, abs=0.02)


def test_files_of_the_command(tmp_path: Path):
    evaluated(tmp_path / "e")
    csv, latex = tmp_path / "new" / "t.csv", tmp_path / "t.tex"
    arguments = ["evaluate", "--out", str(tmp_path / "e"), "--table-only"]
    result = CliRunner().invoke(app, [*arguments, "--csv", str(csv), "--latex", str(latex)])
    assert result.exit_code == 0, result.output
    frame = pd.read_csv(csv)
    assert frame["top1"].tolist() == [0.8, 0.4]
    text = latex.read_text()
    [line] = [line for line in text.splitlines() if line.startswith("random")]
    low, high = (100 * frame.loc[1, f"against_full_{end}"] for end in ("low", "high"))
    assert line.endswith(rf"& 100.0 & -40.0 [{low:+.1f}, {high:+.1f}]* & - \\")
    assert r"csv/all, backbone some/checkpoint, 100 videos" in text

    result = CliRunner().invoke(app, [*arguments, "--csv", str(tmp_path)])
    assert result.exit_code == 1
    assert "it is a folder" in " ".join(result.output.split())


def test_what_latex_would_read_as_its_own():
    assert escape_latex(r"a_b 95% \~") == r"a\_b 95\% \textbackslash{}\textasciitilde{}"
