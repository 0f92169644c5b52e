"""From videos to a model that adapts: evaluate, calibrate, predict; a second model's opinion."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from pipeline.backbones import load_backbone
from pipeline.cli import app
from pipeline.config import RunConfig
from pipeline.decode import DecodeRequest, decode_video
from selector.budgets.rows import calibration_rows
from selector.budgets.second_opinion import ask_second_model
from selector.deploy.model import LiteModel
from selector.evaluation.files import Evaluation
from selector.training.files import save_selector
from tests.builds import make_dataset
from tests.checkpoints import save_videomae
from tests.evaluations import run_evaluation
from tests.lite_models import make_selector

NUM_VIDEOS, MISSING = 126, 7
RATIOS = (1.0, 0.5, 0.25, 0.125)


VIDEOS = [number for number in range(NUM_VIDEOS) if number != MISSING]


def decode(data, number, backbone):
    request = DecodeRequest(
        path=str(data / f"v{number:03d}.mp4"),
        num_frames=backbone.num_frames,
        size=backbone.image_size,
        short_side=backbone.short_side,
    )
    return decode_video(request).clips


@pytest.fixture(scope="module")
def clips(data, tiny_backbone):
    """All videos that are there, (125, T, H, W, 3)."""
    backbone = load_backbone(str(tiny_backbone))
    return np.concatenate([decode(data, number, backbone) for number in VIDEOS])


@pytest.fixture(scope="module")
def data(tmp_path_factory, tiny_backbone):
    """Labelled by what the backbone sees in them, but for every ninth: there is something to lose.

    Of 126 videos one is missing.
    """
    folder = make_dataset(tmp_path_factory.mktemp("data"), NUM_VIDEOS, missing=(MISSING,))
    rows = run_evaluation(folder.parent / "plain", folder, tiny_backbone, "uniform").evaluation
    full = rows.rows().query("method == 'full'").set_index("clip_id")["prediction"]
    labels = np.where(np.arange(NUM_VIDEOS) % 9 == 0, np.arange(NUM_VIDEOS) % 5, full)
    labels = np.where(labels < 0, 0, labels)
    lines = [f"v{number:03d}.mp4,class {label}" for number, label in enumerate(labels)]
    assert set(labels) == set(range(5)), "every class must occur"
    (folder / "videos.csv").write_text("\n".join(["path,label", *lines]) + "\n")
    (folder / "labels.json").write_text(json.dumps(labels.tolist()))
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory, tiny_backbone):
    folder = tmp_path_factory.mktemp("model") / "m"
    save_selector(make_selector(load_backbone(str(tiny_backbone)), str(tiny_backbone)), folder)
    return folder


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory, data, model, tiny_backbone):
    out = tmp_path_factory.mktemp("evaluation")
    run_evaluation(
        out,
        data,
        tiny_backbone,
        "lite",
        selectors={"lite": str(model)},
        keep_ratios=RATIOS,
        shard_size=64,
    )
    return Evaluation(str(out))


@pytest.mark.parametrize("kind", ["threshold", "cascade", "mass"])
def test_what_calibrate_reports_is_what_the_model_then_does(
    kind, data, clips, model, evaluation, tmp_path
):
    lite = LiteModel.from_pretrained(model)
    mine = tmp_path / "model"
    lite.save_pretrained(mine)
    target = {
        "threshold": lite.cost(3).total + lite.cost(1).total,
        "cascade": lite.cost(2).total + 0.6 * lite.cost(4).total,
        "mass": lite.cost(3).total,
    }[kind]
    how = {
        "threshold": ["--small-ratio", "0.25"],
        "cascade": ["--small-ratio", "0.25", "--confidence", "backbone:0.25"],
        "mass": ["--budget", "mass"],
    }[kind]
    command = ["calibrate", "--model", mine, "--eval", evaluation.root, "--keep-ratio", "0.5"]
    result = CliRunner().invoke(
        app, [str(part) for part in [*command, "--target-gflops", target, *how, "--json"]]
    )
    assert result.exit_code == 0, result.output
    shown = json.loads(result.stdout)
    assert shown["outcome"]["num_rows"] == NUM_VIDEOS - 1
    assert shown["num_failed"] == 1
    labels = np.array(json.loads((data / "labels.json").read_text()))[VIDEOS]
    model = LiteModel.from_pretrained(mine)
    with torch.inference_mode():
        pixels = model.backbone.pixel_values(clips)
        adaptive, fixed = model(pixels, adaptive=True), model(pixels, keep_ratio=0.5)
    right = adaptive.logits.argmax(1).numpy() == labels
    assert shown["outcome"]["accuracy"] == pytest.approx(right.mean())
    kept = adaptive.budget.tolist()
    gmacs = np.mean([model.cost(num, adaptive=True).total for num in kept])
    assert shown["outcome"]["gmacs"] == pytest.approx(gmacs)
    assert gmacs <= target
    assert len(set(kept)) > 1, "or there is nothing to compare"
    assert shown["shares"] == pytest.approx(
        {str(num): kept.count(num) / len(kept) for num in set(kept)}
    )
    right = fixed.logits.argmax(1).numpy() == labels
    assert shown["outcome"]["base_accuracy"] == pytest.approx(right.mean())
    assert shown["outcome"]["base_gmacs"] == pytest.approx(model.cost(4).total)


def test_the_command_that_an_error_names_makes_the_rows(data, model, evaluation, tmp_path):
    command = ["calibrate", "--model", model, "--eval", evaluation.root, "--max-loss", "1"]
    refused = CliRunner().invoke(app, [str(part) for part in [*command, "--keep-ratio", "0.7"]])
    assert refused.exit_code == 1
    named = re.search(r"lite-pipeline (evaluate .*)", refused.stderr)
    assert named is not None
    asked = named[1].replace("DATA", str(data)).replace("NEW", str(tmp_path / "new"))
    done = CliRunner().invoke(app, [*asked.split(), "--limit", "5", "--decode-workers", "0"])
    assert done.exit_code == 0, done.output
    made = Evaluation(str(tmp_path / "new"))
    assert 0.7 in made.config.keep_ratios
    assert made.config.selector_digests == evaluation.config.selector_digests


def test_a_second_models_opinion_is_what_it_says_of_each_clip(data, model, evaluation, tmp_path):
    """The classifier here has the backbone's input, so that its own forward pass is the answer."""
    judge = save_videomae(tmp_path / "judge", num_labels=3, seed=4)
    rows = calibration_rows(model, evaluation)
    chosen = rows.clip_ids[:10]
    done = []
    opinion = ask_second_model(
        f"hf:{judge}",
        evaluation,
        np.r_[chosen, MISSING][np.argsort(np.r_[chosen, MISSING])],
        RunConfig(data_root=str(data), decode_workers=0, batch_size=4),
        lambda clips, failed: done.append((clips, failed)),
    )
    at = sorted([*chosen.tolist(), MISSING])
    assert np.isnan(opinion.confidence[at.index(MISSING)])
    assert np.sum(done, axis=0).tolist() == [11, 1]
    other = load_backbone(str(judge))
    for position, clip in enumerate(at):
        if clip == MISSING:
            continue
        with torch.inference_mode():
            pixels = other.pixel_values(decode(data, clip, other))
            logits = other.run(other.embed(pixels))
        expected = logits.softmax(-1).max().item()
        assert opinion.confidence[position] == pytest.approx(expected, abs=1e-4)
    assert opinion.gmacs > 0


def test_calibrate_asks_a_second_model_about_the_videos(data, model, evaluation, tmp_path):
    judge = save_videomae(tmp_path / "judge", num_labels=3, seed=4)
    mine = tmp_path / "model"
    LiteModel.from_pretrained(model).save_pretrained(mine)
    command = [
        *("calibrate", "--model", mine, "--eval", evaluation.root, "--keep-ratio", "1"),
        *("--small-ratio", "0.25", "--confidence", f"hf:{judge}", "--data-root", data),
        *("--target-gflops", "1", "--json"),
    ]
    result = CliRunner().invoke(app, [str(part) for part in command])
    # The judge is as dear as the backbone, so that it can save nothing here.
    assert result.exit_code == 1
    assert "no budget for lite++ from 1: it costs" in result.stderr
    assert not (mine / "lite.json").read_text().count("alpha")
