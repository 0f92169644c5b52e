"""Labels that no comparison of names can catch are caught by the predictions, loudly."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from datasets_spec.synthetic import make
from pipeline import open_store
from pipeline.cli import app


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """42 training videos of 10 classes, of which the shipped backbone knows most."""
    folder = tmp_path_factory.mktemp("data")
    make(folder, 60, seed=3, workers=0)
    return folder


def build(data: Path, store: Path, *more: str) -> tuple[str, str]:
    """What a build prints: the result, and beside it."""
    options = ["--data-root", str(data), "--store", str(store), "--decode-workers", "1", *more]
    result = CliRunner().invoke(app, ["build-oracle", *options])
    assert result.exit_code == 0, result.output
    return result.stdout, re.sub(r"\s+", " ", result.stderr)


def status(store: Path) -> dict[str, object]:
    result = CliRunner().invoke(app, ["status", "--store", str(store), "--json"])
    return json.loads(result.stdout)["accuracy"]


def test_a_build_ends_with_its_accuracy(data: Path, tmp_path: Path) -> None:
    stdout, stderr = build(data, tmp_path / "store")
    clips = open_store(tmp_path / "store").clips()
    top1 = np.mean([row.label == row.prediction for row in clips.itertuples()])
    top5 = np.mean([row.label in list(row.top5)[:5] for row in clips.itertuples()])
    assert top1 > 0.5
    assert f"top-1 {100 * top1:.1f}%, top-5 {100 * top5:.1f}% of 42 clips" in stdout
    assert "WARNING" not in stdout + stderr
    found = status(tmp_path / "store")
    assert (found["top1"], found["top5"], found["warning"]) == (top1, top5, None)
    assert not found["near_chance"]


def test_labels_one_place_off_are_not_passed_over(data: Path, tmp_path: Path) -> None:
    """The names say so too, and would be refused; `--accept-classes` passes them over."""
    moved = shutil.copytree(data, tmp_path / "data")
    (labels,) = moved.rglob("*labels.json")
    ids = json.loads(labels.read_text())
    labels.write_text(json.dumps({name: (int(i) + 1) % len(ids) for name, i in ids.items()}))
    _, stderr = build(moved, tmp_path / "store", "--accept-classes")
    assert "WARNING: top-1 is " in stderr
    assert "would be chance" in stderr
    assert status(tmp_path / "store")["near_chance"]
    shown = CliRunner().invoke(app, ["status", "--store", str(tmp_path / "store")])
    assert "WARNING: top-1 is " in shown.stderr
    assert shown.exit_code == 0


def test_a_store_with_too_little_to_tell_says_only_what_it_is(data: Path, tmp_path: Path) -> None:
    stdout, stderr = build(data, tmp_path / "store", "--limit", "5")
    assert " of 5 clips (chance" in stdout
    assert "WARNING" not in stderr
