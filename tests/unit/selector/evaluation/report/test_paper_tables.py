"""The paper's tables of an evaluation: the right lines, what is missing, and text that parses."""

from __future__ import annotations

import io
import re
import shlex
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.errors import ConfigError
from selector.evaluation.report.paper_tables import (
    DATASETS,
    paper_table,
    to_csv,
    to_latex,
    to_markdown,
)
from selector.evaluation.report.summary import Summary, summarise
from tests.evaluations import make_evaluation

DIGESTS = {"lite": "a", "lite[edges]": "b"}


def evaluated(folder: Path, dataset: str = "ssv2", methods: tuple[str, ...] = ("lite",)) -> Summary:
    """Of 10 videos the full model has 8 right, and every method 6 at half of the tokens."""
    logits = np.zeros((10, 1 + len(methods), 6))
    logits[:, :, 1] = 1.0
    logits[:8, 0, 0] = 2.0
    logits[:6, 1:, 0] = 2.0
    digests = {name: DIGESTS[name] for name in methods if name in DIGESTS}
    made = make_evaluation(
        folder,
        logits,
        [0] * 10,
        dataset=dataset,
        methods=methods,
        selector_digests=digests,
        num_seeds=1,
    )
    return summarise(made)


def test_on_the_papers_dataset_ours_stands_beside_the_printed(tmp_path: Path):
    frame = paper_table(1, evaluated(tmp_path)).frame.set_index("model")
    half = frame.loc["LITE, P = 0.5"]
    assert (half.method, half.gflops) == ("lite", 5.0)
    assert half.top1 == pytest.approx(60)
    assert half.top1_low < 60 < half.top1_high
    assert (half.published_gflops, half.published_top1, half.published_top5) == (80, 69.91, 91.99)
    assert frame.loc["VideoMAE", "top1"] == pytest.approx(80)
    assert np.isnan(frame.loc["LITE, P = 0.3", "top1"])
    assert frame.loc["LITE, P = 0.3", "published_top1"] == 68.33
    assert np.isnan(frame.loc["TimeSformer-L", "top1"])


def test_on_another_dataset_nothing_printed_and_no_empty_line(tmp_path: Path):
    table = paper_table(1, evaluated(tmp_path, "csv"))
    assert table.frame["model"].tolist() == ["VideoMAE", "LITE, P = 0.5"]
    assert not [name for name in table.frame if name.startswith("published")]
    assert "on csv/all" in table.caption
    assert "are of ssv2" in table.caption


def test_what_could_be_evaluated_and_was_not(tmp_path: Path):
    table = paper_table(1, evaluated(tmp_path))
    missing = ["ToMe", "STA", "LITE, P = 0.9", "LITE, P = 0.7", "LITE, P = 0.3"]
    assert table.lacking == missing  # and nothing that this package has no method for
    assert "--methods lite,tome,sta --keep-ratios 1,.9,.7,.5,.3" in table.command


def test_variants_of_the_selector(tmp_path: Path):
    table = paper_table(5, evaluated(tmp_path, methods=("lite", "lite[edges]")))
    frame = table.frame.set_index("model")
    assert frame.loc["edges damped", "method"] == "lite[edges]"
    assert frame.loc["edges damped", "published_top1"] == 64.98
    assert table.lacking == ["isolated peaks removed", "sharpened", "global branch"]
    with pytest.raises(ConfigError, match="has no line of Table 5"):
        paper_table(5, evaluated(tmp_path / "b"), keep_ratio=0.3)


@pytest.mark.parametrize("number", DATASETS)
def test_an_evaluation_without_any_line_says_what_would_make_them(tmp_path: Path, number: int):
    summary = evaluated(tmp_path, methods=("random",))
    with pytest.raises(ConfigError, match=f"no line of Table {number} .* lite-pipeline evaluate"):
        paper_table(number, summary)


@pytest.mark.parametrize("number", DATASETS)
def test_the_command_that_is_named_parses(tmp_path: Path, number: int):
    """It gets as far as the dataset that is not there."""
    with pytest.raises(ConfigError) as error:
        paper_table(number, evaluated(tmp_path / "e", methods=("random",)))
    command = str(error.value).partition("To evaluate them: lite-pipeline ")[2]
    for word in ("DATA", "OUT", "DIR", "MLP"):
        command = re.sub(rf"\b{word}\b", str(tmp_path / word), command)
    result = CliRunner().invoke(app, shlex.split(command))
    assert result.exit_code == 1, result.output
    assert str(tmp_path) in result.output


def test_csv_holds_the_frame(tmp_path: Path):
    table = paper_table(1, evaluated(tmp_path))
    read = pd.read_csv(io.StringIO(to_csv(table)))
    pd.testing.assert_frame_equal(read, table.frame, check_dtype=False)


def test_markdown_and_latex(tmp_path: Path):
    table = paper_table(5, evaluated(tmp_path, "csv", ("lite", "lite[edges]")))
    lines = to_markdown(table).splitlines()
    assert lines[2:5] == [
        "| model | ours | GFLOPs | top-1 % [95 %] | top-5 % |",
        "| --- | --- | --- | --- | --- |",
        lines[4],
    ]
    assert re.fullmatch(r"\| MLP \| lite \| 5 \| 60\.0 \[\d+\.\d, \d+\.\d\] \| 100\.0 \|", lines[4])
    text = to_latex(table)
    assert r"\begin{tabular}{llrrr}" in text
    assert r"model & ours & GFLOPs & top-1 \% [95 \%] & top-5 \% \\" in text
    assert text.count(r"\\") == 1 + len(table.frame)
    assert not re.search(r"(?<!\\)[%#_$]", text)  # a bare one would be a comment or an error


@pytest.mark.parametrize(("suffix", "begins"), [("csv", "model,"), ("md", "The"), ("tex", "\\beg")])
def test_the_command_writes_what_the_ending_says(tmp_path: Path, suffix: str, begins: str):
    evaluated(tmp_path / "e")
    out = tmp_path / f"table.{suffix}"
    arguments = ["table", "1", "--eval", str(tmp_path / "e"), "--out", str(out)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert out.read_text().startswith(begins)
    assert "not evaluated: ToMe, STA" in result.stderr
    refused = CliRunner().invoke(app, [*arguments[:-1], str(tmp_path / "table.doc")])
    assert refused.exit_code == 1
    assert "must end in .csv, .md, .tex" in refused.output


def test_no_such_table(tmp_path: Path):
    with pytest.raises(ConfigError, match="are 1, 2, 3, 4, 5, 6, got 7"):
        paper_table(7, evaluated(tmp_path))
