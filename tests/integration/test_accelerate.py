"""`lite-pipeline accelerate`: from videos and a checkpoint to a model, and what is refused."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest
import torch
from transformers import AutoModelForVideoClassification
from typer.testing import CliRunner

from datasets_spec.synthetic.benchmark import make
from pipeline.backbones.checkpoint import SHIPPED
from pipeline.cli import app
from selector.deploy.model import LiteModel
from selector.evaluation.files import Evaluation
from selector.training.split import is_held_out
from tests.checkpoints import save_videomae
from tests.videos import write_video


def run(data, out, *options, backbone="synthetic"):
    command = ["accelerate", "--backbone", str(backbone), "--data-root", str(data)]
    return CliRunner().invoke(app, [*command, "--out", str(out), "--device", "cpu", *options])


def noise(seed):
    rng = np.random.default_rng(seed)
    return lambda number, height, width: rng.integers(0, 256, (height, width, 3), np.uint8)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A random backbone of five classes, and 80 videos of noise in two of them."""
    root = tmp_path_factory.mktemp("tiny")
    for name, num in (("class 3", 40), ("class 1", 40)):
        (root / "videos" / name).mkdir(parents=True)
        for i in range(num):
            write_video(root / "videos" / name / f"{name[-1]}-{i}.mp4", 5, 16, 16, frame=noise(i))
    return save_videomae(root / "checkpoint"), root / "videos"


def copied(videos, folder, **classes):
    """So many of the videos, of whatever class, under each of these names."""
    sources = iter(sorted(videos.rglob("*.mp4")))
    for name, num in classes.items():
        (folder / name).mkdir(parents=True)
        for _ in range(num):
            shutil.copy(next(sources), folder / name)
    return folder


def test_what_is_wrong_is_said_before_anything_is_made(tiny, tmp_path):
    checkpoint, videos = tiny
    few = copied(videos, tmp_path / "few", **{"class 1": 10, "class 3": 10})
    one = copied(videos, tmp_path / "one", **{"class 1": 80})
    other = copied(videos, tmp_path / "other", dog=40, cat=40)
    alone = copied(videos, tmp_path / "alone", **{".": 1})
    for data, options, fault in (
        (few, [], r"\d+ videos to learn from and \d+ to judge by are too few"),
        (one, [], r"all 80 videos of .* are of one class"),
        (other, [], r"dataset folder \(2 classes\) and checkpoint .* do not go together"),
        (videos, ["--speedup", "1000"], "1000 times cheaper is out of reach: with one token"),
        (videos, ["--speedup", "1"], "the speed-up must be a number above 1"),
        (videos, ["--max-loss", "-1"], "the loss must lie between 0 and 100 points, got -1"),
        (videos, ["--speedup", "2", "--max-loss", "1"], "either --speedup or --max-loss"),
        (videos, ["--unlabelled", "--split", "train"], "no dataset, no split"),
        (alone, ["--unlabelled"], "holds 1 videos, and 60 are the least"),
        (videos, ["--split", "training"], "train"),
        (videos, ["--candidates", "lite,tomy"], "unknown method 'tomy'"),
    ):
        result = run(data, tmp_path / "out", *options, backbone=checkpoint)
        said = " ".join(result.output.split())
        assert (result.exit_code, said[:7]) == (1, "error: "), (options, said)
        assert re.search(fault, said), (options, said)
        assert not list(tmp_path.glob("out/*.json")), options
        assert not list(tmp_path.glob("out/work/store")), options
        shutil.rmtree(tmp_path / "out", ignore_errors=True)


def test_a_checkpoint_that_knows_nothing_of_the_labels_is_refused(tiny, tmp_path):
    checkpoint, videos = tiny
    result = run(videos, tmp_path / "out", backbone=checkpoint)
    assert result.exit_code == 1
    assert "no more than chance" in " ".join(result.output.split()), result.output
    # The noise of each number is there under both classes.
    assert "WARNING: 80 videos have the same content as another" in result.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["work"]


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    root = tmp_path_factory.mktemp("rendered") / "videos"
    make(root, 300, seed=7)
    return root


@pytest.mark.slow
def test_one_command_makes_a_model_and_says_what_it_costs(rendered, tmp_path, monkeypatch):
    out = tmp_path / "model"
    asked = ("--dataset", "synthetic", "--candidates", "lite,lite-spread,uniform,tome")

    def stopped(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("selector.training.train.train_selector", stopped)
        assert run(rendered, out, *asked).exit_code == 130
    assert [path.name for path in out.iterdir()] == ["work"]
    built = {p: p.stat().st_mtime_ns for p in (out / "work" / "store").rglob("*.parquet")}
    result = run(rendered, out, *asked)
    assert result.exit_code == 0, result.output
    assert {p: p.stat().st_mtime_ns for p in built} == built
    # The numbers once more, from the rows.
    measured = json.loads((out / "lite.json").read_text())["measured"]
    rows = Evaluation(str(out / "work" / "evaluation-2")).rows()
    chosen = rows[
        (rows["method"] == measured["method"]) & (rows["keep_ratio"] == measured["keep_ratio"])
    ]
    full = rows[rows["method"] == "full"]
    assert measured["num_videos"] == len(chosen) == len(full) > 50
    top1 = (chosen["prediction"] == chosen["label"]).mean()
    assert measured["top1"] == pytest.approx(top1)
    assert measured["full_top1"] == pytest.approx((full["prediction"] == full["label"]).mean())
    assert measured["full_gmacs"] / measured["gmacs"] >= 2
    for ratio in set(rows["keep_ratio"]) - {1.0}:  # none that is as cheap is better
        for method in set(rows["method"]) - {"full"}:
            line = rows[(rows["method"] == method) & (rows["keep_ratio"] == ratio)]
            if ratio <= measured["keep_ratio"]:
                assert (line["prediction"] == line["label"]).mean() <= top1 + 1e-12
    assert f"{100 * top1:.1f} %" in " ".join(result.output.split())
    assert f"{100 * top1:.1f} %" in (out / "README.md").read_text()
    # The model does what was measured.
    pixels = torch.randn(3, 16, 3, 48, 48)
    model = AutoModelForVideoClassification.from_pretrained(out)
    lite = LiteModel.from_pretrained(out)
    assert torch.equal(model(pixels).logits, lite(pixels).logits)
    assert lite.cost_of().total == pytest.approx(measured["gmacs"])
    # Another goal begins with what is there, and one that cannot be met leaves the model alone.
    before = (out / "lite.json").read_bytes()
    result = run(rendered, out, *asked, "--max-loss", "0", "--candidates", "uniform")
    if result.exit_code:
        assert "nothing that was evaluated loses at most 0 points" in result.output
        assert (out / "lite.json").read_bytes() == before


@pytest.mark.slow
def test_without_labels_the_full_model_is_the_judge(rendered, tmp_path):
    out = tmp_path / "model"
    result = run(rendered, out, "--unlabelled", "--candidates", "lite-spread,uniform")
    assert result.exit_code == 0, result.output
    measured = json.loads((out / "lite.json").read_text())["measured"]
    rows = Evaluation(str(out / "work" / "evaluation-2")).rows()
    rows = rows[[is_held_out(video, 0.5) for video in rows["video_id"]]]
    full = rows[rows["method"] == "full"].set_index("clip_id")["prediction"]
    chosen = rows[
        (rows["method"] == measured["method"]) & (rows["keep_ratio"] == measured["keep_ratio"])
    ].set_index("clip_id")["prediction"]
    assert measured["full_top1"] == 1
    assert measured["top1"] == pytest.approx((full == chosen).mean())
    assert "agreement with the full model" in " ".join(result.output.split())
    assert "may have learnt" not in result.output  # what did is left out here
    assert LiteModel.from_pretrained(out).id2label[0] == "Moving something left"


@pytest.mark.slow
def test_what_was_trained_is_taken_where_it_is_shown_to_be_better(rendered, tmp_path):
    out = tmp_path / "model"
    asked = ("--dataset", "synthetic", "--candidates", "lite", "--speedup", "4", "--adapt", "30s")
    result = run(rendered, out, *asked)
    assert result.exit_code == 0, result.output
    said = " ".join(result.output.split())
    assert "adapted to the masks of lite for" in said
    measured = json.loads((out / "lite.json").read_text())["measured"]
    (folder,) = (out / "work").glob("adapted-lite-*")
    (after,) = (out / "work").glob("evaluation-lite-*")

    def right(place, method):
        rows = Evaluation(str(place)).rows()
        rows = rows[(rows["method"] == method) & rows["keep_ratio"].isin(ratios)]
        return (rows["prediction"] == rows["label"]).to_numpy()

    ratios = [measured["keep_ratio"]]
    before, trained = right(out / "work" / "evaluation-4", "lite"), right(after, "lite")
    taken = (out / "backbone" / "model.safetensors").read_bytes()
    if "adapted" in measured:
        assert measured["top1"] == pytest.approx(trained.mean())
        assert measured["adapted"]["gain"][0] == pytest.approx(trained.mean() - before.mean())
        assert measured["adapted"]["gain"][1] > 0
        assert taken == (folder / "backbone" / "model.safetensors").read_bytes()
        assert "with all tokens the adapted backbone has" in said
    else:
        assert measured["top1"] == pytest.approx(before.mean())
        assert taken == (SHIPPED / "synthetic" / "model.safetensors").read_bytes()
        assert "do not show to be better" in said or "no step was better" in said
    assert LiteModel.from_pretrained(out).config.keep_ratio == measured["keep_ratio"]
