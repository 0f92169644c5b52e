"""Each backbone family, from video files through all commands to a class name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from pipeline.backbones import load_backbone
from pipeline.cli import app
from pipeline.decode import decode_video
from pipeline.store.reader import open_store
from selector.deploy.model import LiteModel
from selector.deploy.predict import clip_request
from tests.builds import make_dataset
from tests.checkpoints import save_timesformer, save_videomae, save_vivit, save_vjepa2

SIZES = {"image_size": 24, "num_frames": 6}
FAMILIES: dict[str, Callable[..., Path]] = {
    "videomae": save_videomae,
    "timesformer": save_timesformer,
    "timesformer divided": lambda folder, **sizes: save_timesformer(
        folder, **sizes, attention_type="divided_space_time"
    ),
    "vivit": save_vivit,
    "vjepa2": save_vjepa2,
}
NUM_VIDEOS = 10


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("data"), NUM_VIDEOS)


def run(command: str, *arguments: object) -> Any:
    result = CliRunner().invoke(app, [command, *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout) if "--json" in arguments else result.output


@pytest.mark.parametrize("family", FAMILIES)
def test_from_videos_to_a_name(family: str, data: Path, tmp_path: Path):
    checkpoint = FAMILIES[family](tmp_path / "checkpoint", **SIZES)
    dataset = ("--dataset", "csv", "--split", "all", "--data-root", data)
    here = ("--decode-workers", 0, "--batch-size", 4, "--device", "cpu")
    store, selector = tmp_path / "store", tmp_path / "selector"

    run(
        "build-oracle", *dataset, *here, "--backbone", checkpoint, "--store", store,
        "--embeddings-per-clip", "all",
    )  # fmt: skip
    assert run("verify", "--store", store, "--json")["sound"]
    backbone = load_backbone(str(checkpoint))
    kept = open_store(store)
    spread = np.ptp(kept.scores()[:].reshape(NUM_VIDEOS, -1), axis=1)
    assert (spread > 0.99).all(), "each clip's map tells tokens apart"
    model = LiteModel.from_backbone(checkpoint, "uniform")
    request = clip_request(model, str(data / "v007.mp4"), "uniform", "pyav")
    clip = decode_video(request).clips
    with torch.no_grad():
        seen = backbone.selector_input(backbone.embed(backbone.pixel_values(clip)))[0]
    np.testing.assert_allclose(kept.embeddings[7], seen.numpy(), rtol=2e-3, atol=2e-3)

    training = ("--epochs", 2, "--hidden", 16, "--held-out", 0.3, "--device", "cpu")
    run("train-selector", "--store", store, "--out", selector, *training)
    done = run(
        "evaluate", *dataset, *here, "--backbone", checkpoint, "--out", tmp_path / "evaluation",
        "--methods", "random,lite,oracle", "--keep-ratios", "1,.5",
        "--selector", selector, "--json",
    )  # fmt: skip
    rows = {row["method"]: row for row in done["table"]}
    part = "norm1" if backbone.prefix else "output"
    assert {"full", "random", "lite", f"oracle[blocks.-1.{part},gradcam]"} == rows.keys()
    model = LiteModel.from_pretrained(selector)
    half = backbone.grid.num_tokens // 2
    assert rows["lite"]["gmacs"] == pytest.approx(model.cost(half).total)

    predicted = run(
        "predict", data / "v007.mp4", "--model", selector, "--keep-ratio", 0.5, "--json",
    )[0]  # fmt: skip
    output = model(backbone.pixel_values(clip), keep_ratio=0.5)
    assert predicted["kept_tokens"] == [half]
    assert predicted["top"][0]["class"] == int(output.logits[0].argmax())
    assert predicted["top"][0]["label"] == f"class {int(output.logits[0].argmax())}"

    whole = tmp_path / "whole"
    run("export-lite", "--model", selector, "--out", whole)
    checkpoint.rename(tmp_path / "gone")
    again = run("predict", data / "v007.mp4", "--model", whole, "--keep-ratio", 0.5, "--json")
    assert again[0]["top"] == predicted["top"]
