"""A selector of one backbone that learnt from the oracle of another, from videos to `evaluate`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.store.reader import open_store
from selector.training.split import is_held_out
from tests.builds import make_dataset
from tests.checkpoints import save_timesformer, save_videomae

NUM_VIDEOS = 10


def run(command: str, *arguments: object, code: int = 0) -> Any:
    result = CliRunner().invoke(app, [command, *map(str, arguments)])
    assert result.exit_code == code, result.output
    return json.loads(result.stdout) if "--json" in arguments and not code else result.output


def test_from_two_stores_to_an_evaluation(tmp_path: Path):
    """Tubelets of two frames here, single frames there: one grid of 3x3x3 tokens."""
    data = make_dataset(tmp_path / "data", NUM_VIDEOS)
    here = save_videomae(tmp_path / "videomae", image_size=24, num_frames=6)
    there = save_timesformer(tmp_path / "timesformer", image_size=24, num_frames=3)
    dataset = ("--dataset", "csv", "--split", "all", "--data-root", data)
    alone = ("--decode-workers", 0, "--batch-size", 4, "--device", "cpu")
    build = ("build-oracle", *dataset, *alone)
    run(*build, "--backbone", here, "--store", tmp_path / "here", "--shard-size", 4)
    other = ("--embeddings-per-clip", 0, "--shard-size", 3)
    run(*build, "--backbone", there, "--store", tmp_path / "there", *other)

    training = ("--epochs", 2, "--hidden", 16, "--held-out", 0.3, "--device", "cpu", "--json")
    selector = tmp_path / "selector"
    said = run(
        "train-selector", "--store", tmp_path / "here", "--scores-from", tmp_path / "there",
        "--out", selector, *training,
    )  # fmt: skip
    assert said["videos"] == {"num_both": 10, "num_only_here": 0, "num_only_there": 0}
    scores = open_store(tmp_path / "there")
    videos = scores.plan()["video_id"]
    trained = [not is_held_out(video, 0.3) for video in videos]
    means = scores.scores()[:][trained].astype(np.float32).reshape(sum(trained), -1).mean(0)
    prior = load_file(selector / "selector.safetensors")["prior"]
    np.testing.assert_allclose(prior, means, rtol=1e-5)
    assert np.ptp(means) > 0.1

    evaluate = ("evaluate", *dataset, *alone, "--methods", "random,lite", "--selector", selector)
    done = run(*evaluate, "--backbone", here, "--out", tmp_path / "evaluation", "--json")
    assert {"full", "random", "lite"} <= {row["method"] for row in done["table"]}
    refused = run(*evaluate, "--backbone", there, "--out", tmp_path / "refused", code=1)
    assert "was trained for another backbone" in " ".join(refused.split())
