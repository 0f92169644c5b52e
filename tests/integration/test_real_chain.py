"""The whole chain on a few real clips: check, train a backbone, build, train, evaluate, predict."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline import open_store
from pipeline.cli import app

CLASSES = ("JumpRope", "TrampolineJumping")
SPEC = """\
name: real
format: csv
splits:
  train: [videos.csv]
  validation: [videos.csv]
  all: [videos.csv]
sampling: stride:4
flip: true
"""


@pytest.fixture(scope="module")
def real_dir() -> Path:
    """Real clips with a `clips.csv`; set LITE_REAL to use others. Skips loudly without them."""
    beside = Path(__file__).resolve().parents[3] / "shared" / "real" / "ucf10"
    folder = Path(os.environ.get("LITE_REAL", beside))
    if not (folder / "clips.csv").is_file():
        pytest.skip(f"NO REAL CLIPS at {folder}: set LITE_REAL to a folder with clips.csv")
    return folder


@pytest.fixture(scope="module")
def data(real_dir, tmp_path_factory) -> Path:
    """Twenty of them as a dataset: six to train on and four to validate on, of two classes."""
    root = tmp_path_factory.mktemp("real")
    (root / "videos").symlink_to(real_dir / "videos")
    with (real_dir / "clips.csv").open() as file:
        listed = list(csv.DictReader(file))
    first_of_group = list({row["group"]: row for row in reversed(listed)}.values())[::-1]
    chosen = [
        row
        for name in CLASSES
        for split, some, count in (("train", first_of_group, 6), ("validation", listed, 4))
        for row in [r for r in some if (r["label"], r["split"]) == (name, split)][:count]
    ]
    assert len(chosen) == 20
    with (root / "videos.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(chosen[0]))
        writer.writeheader()
        writer.writerows(chosen)
    (root / "real.yaml").write_text(SPEC)
    return root


def run(*words: object):
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, (words, result.output)
    return result.stdout


def test_the_chain_runs_on_real_clips(data, tmp_path):
    spec, backbone, store, selector = (data / "real.yaml", *(tmp_path / n for n in "bso"))
    common = ("--dataset", spec, "--data-root", data)
    run("datasets", "check", spec, "--data-root", data)
    said = run(
        *("train-backbone", *common, "--out", backbone, "--init", "synthetic", "--steps", 3),
        *("--batch-size", 4, "--lr", "8e-4", "--keep-ratio-range", "0.2,0.6", "--device", "cpu"),
    )
    assert "on 8 videos" in said
    assert tuple(json.loads((backbone / "config.json").read_text())["id2label"].values()) == CLASSES
    run("build-oracle", *common, "--split", "train", "--backbone", backbone, "--store", store)
    assert open_store(store).clips()["group"].nunique() == 12
    run("train-selector", "--store", store, "--out", selector, "--epochs", 1, "--held-out", 0.5)
    report = tmp_path / "report"
    run(
        *("evaluate", *common, "--split", "validation", "--backbone", backbone, "--out", report),
        *("--selector", selector, "--methods", "random,lite", "--keep-ratios", "0.5"),
    )
    assert any(report.iterdir())
    video = next(data.glob("videos/JumpRope/*.mp4"))
    assert any(name in run("predict", video, "--model", selector) for name in CLASSES)
