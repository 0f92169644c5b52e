"""`lite-pipeline import-checkpoint`: what it prints, and how it fails."""

from __future__ import annotations

import json

import pytest
import torch
from typer.testing import CliRunner

from pipeline.backbones import load_backbone
from pipeline.cli import app
from tests.original_videomae import original_weights

SIZES = ("--heads", 2, "--frames", 4, "--fresh-positions")


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "model.pth"
    torch.save({"model": original_weights(patch=16)}, path)
    return path


def run(*arguments):
    return CliRunner().invoke(app, ["import-checkpoint", *map(str, arguments)])


def test_it_says_what_it_wrote_and_what_it_assumed(file, tmp_path):
    names = tmp_path / "labels.json"
    names.write_text(json.dumps({f"doing {i}": str(4 - i) for i in range(5)}))
    done = run(file, "--out", tmp_path / "out", "--labels", names, *SIZES)
    assert done.exit_code == 0, done.output
    assert "3 blocks of 24 channels, 4 frames of 224 pixels, 5 classes named" in done.stdout
    assert f"--backbone {tmp_path / 'out'}" in done.stdout
    assert "assumed, as published, because the file does not say: 224 pixels" in done.stderr
    backbone = load_backbone(str(tmp_path / "out"))
    assert backbone.label_names == [f"doing {4 - i}" for i in range(5)]


def test_a_fault_is_one_line(file, tmp_path):
    done = run(file, "--out", tmp_path / "out", "--frames", 4)
    assert done.exit_code == 1
    assert "give its attention heads, --heads N" in done.stderr
    assert len(done.stderr.splitlines()) == 1
