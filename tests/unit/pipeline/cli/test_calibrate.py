"""`lite-pipeline calibrate`: what it prints, what it saves, and when it saves nothing."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from pipeline.cli import app
from selector.deploy.config import LiteConfig
from tests.unit.selector.budgets.test_rows import evaluate, save_model


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory):
    """With the selector that `save_model` makes."""
    folder = tmp_path_factory.mktemp("evaluation")
    evaluate(folder / "e", save_model(folder / "same"))
    return folder / "e"


@pytest.fixture
def model(tmp_path):
    return save_model(tmp_path / "model")


def run(model, evaluation, *options):
    command = ["calibrate", "--model", model, "--eval", evaluation, *options]
    return CliRunner().invoke(app, [str(argument) for argument in command])


def test_the_model_gets_its_budget_and_the_reader_what_to_expect(model, evaluation):
    result = run(model, evaluation, "--max-loss", "1", "--budget", "mass")
    assert result.exit_code == 0, result.output
    config = LiteConfig.load(model)
    assert config.budget.levels == (0.1, 0.3, 0.5)
    assert config.calibration["outcome"]["num_rows"] == 400
    assert "on 400 clips of 400 videos: " in result.stdout
    shown = " ".join(result.stdout.split())
    assert "fixed budget 6 100.00 adaptive, on" in shown
    assert "+0.00 points [-0.95, +0.95] against the fixed budget" in shown
    assert max(map(len, result.stdout.splitlines()[:-1])) <= 80
    assert "warning" not in result.stdout
    assert f"saved in {model / 'lite.json'}" in result.stdout


def test_json_is_all_there_is_and_its_numbers_are_the_saved_ones(model, evaluation):
    result = run(model, evaluation, "--target-gflops", "5.5", "--json")
    assert result.exit_code == 0, result.output
    shown = json.loads(result.stdout)
    config = LiteConfig.load(model)
    assert shown["budget"]["alpha"] == config.budget.alpha
    assert shown["held_out"] == config.calibration["held_out"]
    assert sum(shown["shares"].values()) == pytest.approx(1)
    assert shown["outcome"]["gmacs"] <= 5.5


def test_clips_that_do_not_count_and_doubts_are_said(model, tmp_path):
    evaluate(tmp_path / "e", model, split="train")
    result = run(model, tmp_path / "e", "--target-gflops", "4.6")
    assert result.exit_code == 0, result.output
    num = 400 - LiteConfig.load(model).calibration["num_trained_on"]
    shown = " ".join(result.stdout.split())
    assert f"on {num} clips of {num} videos (left out: {400 - num} trained on): " in shown
    warnings = LiteConfig.load(model).calibration["warnings"]
    assert len(warnings) == shown.count("warning: ") > 0
    assert all(f"warning: {text}" in shown for text in warnings)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "--max-loss POINTS (the cheapest"),
        (["--max-loss", "1", "--target-gflops", "1"], "one of the two: --max-loss"),
        (["--max-loss", "1", "--budget", "mood"], "budget must be one of"),
        (["--max-loss", "1", "--keep-ratio", "0.3", "--small-ratio", "0.5"], "below the base"),
        (["--max-loss", "1", "--budget", "mass", "--confidence", "x"], "belong to"),
        (["--max-loss", "1", "--confidence", "hf:judge"], "--data-root"),
        (["--max-loss", "1", "--keep-ratio", "0.7"], "lite-pipeline evaluate --data-root DATA"),
        (["--target-gflops", "0.1"], "GFLOPs is below"),
        (["--max-loss", "0", "--confidence", "backbone:0.3"], "no less than the fixed budget's"),
    ],
)
def test_what_cannot_be_is_an_error_and_nothing_is_saved(model, evaluation, options, message):
    result = run(model, evaluation, *options)
    assert result.exit_code == 1
    assert message in result.stderr
    assert not (model / "lite.json").exists()


def test_too_few_videos_save_nothing(model, tmp_path):
    evaluate(tmp_path / "e", model, num_videos=60)
    result = run(model, tmp_path / "e", "--max-loss", "1")
    assert result.exit_code == 1
    assert "has 60 videos to calibrate on" in result.stderr
    assert not (model / "lite.json").exists()


def test_what_is_no_evaluation_and_no_model_is_said(model, evaluation, tmp_path):
    assert "is no evaluation" in run(model, tmp_path, "--max-loss", 1).stderr
    assert "is no folder" in run(tmp_path / "none", evaluation, "--max-loss", 1).stderr
    assert "no selector in" in run(tmp_path, evaluation, "--max-loss", 1).stderr


def test_what_the_configuration_says_besides_is_kept(model, evaluation):
    LiteConfig(spread=0.0, backbone="somewhere", revision="r").save(model)
    assert run(model, evaluation, "--max-loss", "1").exit_code == 0
    config = LiteConfig.load(model)
    assert (config.backbone, config.revision) == ("somewhere", "r")
    assert np.isfinite([config.budget.alpha, config.budget.beta]).all()
