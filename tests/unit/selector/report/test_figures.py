"""The paper's figures: their numbers, their files, and what is said where something lacks."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.errors import ClipStatus, ConfigError
from selector.evaluation.report.summary import Summary, summarise
from selector.report.figures import FIGURES, evaluation_figure, store_figure
from tests.evaluations import make_evaluation, make_lite_evaluation
from tests.stores import make_store

LABELS = [0, 1, 2] * 8


def evaluated(folder: Path, keep_ratio: float = 0.5) -> Summary:
    """24 videos of 3 classes. The full model has 8, 6 and 4 of a class right, random 8, 4 and 0."""
    logits = np.zeros((24, 2, 4))
    logits[:, :, 3] = 1.0
    for label, counts in enumerate([(8, 8), (6, 4), (4, 0)]):
        videos = np.flatnonzero(np.array(LABELS) == label)
        for column, count in enumerate(counts):
            logits[videos[:count], column, label] = 2.0
    return summarise(
        make_evaluation(
            folder, logits, LABELS, methods=("random",), keep_ratios=(1.0, keep_ratio), num_seeds=1
        )
    )


def points(picture) -> list[tuple[float, float]]:
    """The markers that say something."""
    lines = [line for ax in picture.axes for line in ax.lines if line.get_gid()]
    return [(float(line.get_xdata()[0]), float(line.get_ydata()[0])) for line in lines]


@pytest.mark.parametrize(("number", "x"), [(1, (10, 5)), (2, (1, 0.5))])
def test_accuracy_against_cost(tmp_path: Path, number: int, x: tuple[float, float]):
    """10 tokens cost 10 by the made-up count; 18 of 24 are right in full, and 12 at half."""
    picture = evaluation_figure(number, evaluated(tmp_path))
    np.testing.assert_allclose(points(picture), [(x[0], 75), (x[1], 50)])


def test_an_adaptive_budget_has_no_keep_ratio_of_its_own(tmp_path: Path):
    summary = summarise(make_lite_evaluation(tmp_path)[0])
    assert {row.method for row in summary.table} > {"full", "lite"}
    for number, shown in ((1, True), (2, False)):
        _, names = evaluation_figure(number, summary).axes[0].get_legend_handles_labels()
        assert any("++" in name for name in names) == shown


def test_what_classes_lose(tmp_path: Path):
    picture = evaluation_figure(5, evaluated(tmp_path))
    np.testing.assert_allclose(points(picture), [(100, 0), (75, 25), (50, 50)], atol=1e-9)


def test_token_values(tmp_path: Path):
    store = make_store(tmp_path / "s", 10)
    stairs = store_figure(3, store).axes[0].patches[0]
    scores = np.asarray(store.scores()[:], np.float64).ravel()
    expected, _ = np.histogram(scores, np.linspace(0, 1, 51))
    np.testing.assert_allclose(stairs.get_data().values, 100 * expected / len(scores))


@pytest.mark.parametrize("number", FIGURES)
def test_nothing_given(number: int):
    make = evaluation_figure if number in (1, 2, 5) else store_figure
    with pytest.raises(ConfigError, match=r"needs (an evaluation|a store), --\w+ DIR: lite-pip"):
        make(number, None)


def test_rows_that_are_not_there(tmp_path: Path):
    with pytest.raises(ConfigError, match="needs random at keep ratio 0.5"):
        evaluation_figure(5, evaluated(tmp_path / "e", keep_ratio=0.3))
    with pytest.raises(ConfigError, match="--data-root DATA --model SELECTOR: lite-pipeline train"):
        store_figure(7, make_store(tmp_path / "s", 4))


@pytest.mark.parametrize("number", [3, 4, 7])
def test_a_store_of_failures(tmp_path: Path, number: int):
    make_store(tmp_path / "s", 2, failed=dict.fromkeys((0, 1), ClipStatus.MISSING_FILE))
    out = tmp_path / "f.png"
    arguments = ["figure", str(number), "--store", str(tmp_path / "s"), "--out", str(out)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1
    assert "lite-pipeline failures" in result.output
    assert not out.exists()


@pytest.mark.parametrize("clips", [1, 2])
def test_a_store_of_few_clips(tmp_path: Path, clips: int):
    store = make_store(tmp_path / "s", clips)
    assert store_figure(3, store).axes
    assert "clip 0" in store_figure(4, store).get_suptitle()


@pytest.mark.parametrize("number", [1, 4])
@pytest.mark.parametrize("kind", ["png", "svg", "pdf"])
def test_files(tmp_path: Path, number: int, kind: str):
    evaluated(tmp_path / "e")
    make_store(tmp_path / "s", 5)
    out = tmp_path / f"f.{kind}"
    given = ["--eval", str(tmp_path / "e"), "--store", str(tmp_path / "s")]

    def drawn() -> bytes:
        result = CliRunner().invoke(app, ["figure", str(number), *given, "--out", str(out)])
        assert result.exit_code == 0, result.output
        return out.read_bytes()

    data = drawn()
    assert data == drawn()
    if kind == "png":
        with Image.open(out) as image:
            assert min(image.size) > 300
    elif kind == "svg":
        assert ET.fromstring(data).tag.endswith("svg")
    else:
        assert data.startswith(b"%PDF")


def test_no_such_figure_or_format(tmp_path: Path):
    runner = CliRunner()
    result = runner.invoke(app, ["figure", "6", "--out", str(tmp_path / "f.png")])
    assert (result.exit_code, "the figures are 1, 2, 3, 4, 5, 7, got 6" in result.output) == (
        1,
        True,
    )
    result = runner.invoke(app, ["figure", "1", "--out", str(tmp_path / "f.gif")])
    assert (result.exit_code, "must end in .png, .svg, .pdf" in result.output) == (1, True)
