"""Masked pre-training: what is hidden, that no label counts, and what is left in the folder."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from pipeline.backbones import load_backbone
from pipeline.cli import app
from pipeline.errors import ConfigError
from pipeline.standin.checkpoint import load_state
from pipeline.standin.footage import Footage
from pipeline.standin.loop import Schedule, advance, read_log
from pipeline.standin.model import as_backbone, build_model
from pipeline.standin.pretrain import NO_CLASS, PretrainConfig, Pretrainer, tube_masks, with_decoder
from tests.videos import write_video

CONFIG = PretrainConfig(
    dataset="csv",
    data_digest="",
    num_frames=4,
    image_size=16,
    patch_size=4,
    hidden_size=24,
    num_layers=1,
    num_heads=4,
    batch_size=8,
    steps=5,
    warmup_steps=1,
)


def ramps(count=24):
    """Clips of a slope each, in its own direction: what is shown tells what is hidden."""
    rng = np.random.default_rng(0)
    x, y = np.meshgrid(np.linspace(-1, 1, 20), np.linspace(-1, 1, 20))
    slope = rng.uniform(-60, 60, (2, count, 1, 1))
    frames = 128 + slope[0] * x + slope[1] * y
    frames = np.broadcast_to(frames[:, None, :, :, None], (count, 4, 20, 20, 3))
    return Footage(frames.astype(np.uint8), np.full(count, -1))


def pretrain(out, config=CONFIG, start=None, on_step=lambda step, loss: None):
    out.mkdir(exist_ok=True)
    trainer = Pretrainer(config, ramps(), out, "cpu", start)
    advance(trainer, Schedule(validate_every=1, save_every=2), on_step)
    return trainer


def test_a_tenth_of_the_places_is_seen_and_the_same_ones_in_every_frame():
    """Of 6 x 6 places 0.9 are 32.4: 32 hidden and 4 seen, in each of 8 rows of the grid in time."""
    config = PretrainConfig(dataset="csv", data_digest="")
    masks = tube_masks(config, 50, torch.Generator().manual_seed(1))
    assert masks.shape == (50, 288)
    assert masks.dtype == torch.bool
    hidden = [{i for i in range(288) if mask[i]} for mask in masks]
    for tokens in hidden:
        places = {token % 36 for token in tokens}
        assert len(places) == 32
        assert tokens == {36 * t + place for t in range(8) for place in places}
    assert len({frozenset(tokens) for tokens in hidden}) > 45  # each clip its own
    times = masks[:, :36].float().mean(0)
    assert times.min() > 0.6  # no place is always seen: 0.89 of 50 clips, deviation 0.04
    half = tube_masks(replace(config, mask_ratio=0.5), 3, torch.Generator())
    assert half.sum(1).tolist() == [144] * 3


def test_hidden_patches_are_drawn_as_their_own_mean_at_a_loss_of_one():
    """Squares of P values over their own deviation (of P - 1) have the mean (P - 1) / P."""
    model = with_decoder(build_model(CONFIG, [NO_CLASS]), CONFIG)
    torch.nn.init.zeros_(model.decoder.head.weight)
    torch.nn.init.zeros_(model.decoder.head.bias)
    frames = torch.randint(0, 256, (3, 4, 16, 16, 3), dtype=torch.uint8)
    pixels = as_backbone(build_model(CONFIG, [NO_CLASS]), CONFIG).pixel_values(frames)
    masks = tube_masks(CONFIG, 3, torch.Generator())
    patch = 2 * 4 * 4
    assert model(pixels, bool_masked_pos=masks).loss.item() == pytest.approx(
        (patch - 1) / patch, rel=1e-4
    )


def test_the_decoder_is_half_as_wide_as_the_encoder_and_four_layers_deep():
    model = with_decoder(build_model(CONFIG, [NO_CLASS]), CONFIG)
    assert model.encoder_to_decoder.weight.shape == (12, 24)
    assert len(model.decoder.decoder_layers) == 4
    assert model.decoder.decoder_layers[0].attention.attention.num_attention_heads == 2
    assert model.decoder.decoder_layers[0].intermediate.dense.weight.shape == (48, 12)


def test_the_loss_goes_down(tmp_path):
    losses = []
    config = replace(CONFIG, steps=150, learning_rate=4e-3, mask_ratio=0.75)
    pretrain(tmp_path / "out", config, on_step=lambda step, loss: losses.append(loss))
    assert np.mean(losses[:5]) > 0.9
    assert np.mean(losses[-5:]) < 0.6
    logged = [entry["loss"] for entry in read_log(tmp_path / "out")]
    assert logged == pytest.approx(losses, abs=1e-4)


def test_an_interrupted_training_ends_as_one_that_was_not(tmp_path):
    def interrupt(step, loss):
        if step == 3:
            raise KeyboardInterrupt

    whole, parts = tmp_path / "whole", tmp_path / "parts"
    ended = pretrain(whole)
    with pytest.raises(KeyboardInterrupt):
        pretrain(parts, on_step=interrupt)
    assert load_state(parts, "cpu")["step"] == 2
    resumed = pretrain(parts)
    assert resumed.loss == ended.loss
    assert (whole / "model.safetensors").read_bytes() == (parts / "model.safetensors").read_bytes()
    one, other = load_state(whole, "cpu"), load_state(parts, "cpu")
    assert all(torch.equal(one["model"][name], other["model"][name]) for name in one["model"])
    logs = [[(e["step"], e["loss"]) for e in read_log(out)] for out in (whole, parts)]
    assert logs[0] == logs[1]
    assert [step for step, _ in logs[0]] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("start", [None, "synthetic"], ids=["scratch", "videomae"])
def test_what_is_saved_is_the_encoder_that_was_trained(tmp_path, start):
    """Its last norm becomes the head's; decoder and mask token are left behind."""
    backbone = load_backbone(start) if start else None
    config = CONFIG if start is None else PretrainConfig(dataset="csv", data_digest="", steps=2)
    before = (
        {name: value.clone() for name, value in backbone.model.state_dict().items()}
        if start
        else {}
    )
    footage = Footage(
        np.random.default_rng(0).integers(0, 256, (4, 16, 60, 60, 3), np.uint8), np.full(4, -1)
    )
    out = tmp_path / "out"
    out.mkdir()
    trainer = Pretrainer(config, footage if start else ramps(), out, "cpu", backbone)
    advance(trainer, Schedule(), lambda step, loss: None)
    again, state = load_backbone(str(out)), load_state(out, "cpu")["model"]
    saved = again.model.state_dict()
    inside = {name for name in state if name.startswith("videomae.")}
    norms = {"videomae.layernorm.weight", "videomae.layernorm.bias"}
    assert norms < inside
    assert set(saved) == (inside - norms) | {
        *("fc_norm.weight", "fc_norm.bias", "classifier.weight", "classifier.bias")
    }
    for name in inside:
        there = name.replace("videomae.layernorm", "fc_norm")
        assert torch.equal(saved[there], state[name]), name
        assert not start or not torch.equal(saved[there], before[there]), f"{name} was not trained"
    assert again.label_names == [NO_CLASS]


def bright(number, height, width):
    return np.full((height, width, 3), min(255, 20 + 5 * number), np.uint8)


def make_table(root, labels):
    root.mkdir()
    for i in range(len(labels)):
        write_video(root / f"{i}.mp4", 20, frame=lambda n, h, w, i=i: bright(n * (i + 1), h, w))
    lines = [f"{i}.mp4,{label},train" for i, label in enumerate(labels)]
    (root / "videos.csv").write_text("\n".join(["path,label,split", *lines]) + "\n")
    return root


def command(root, out, *more, dataset="csv"):
    said = ["pretrain-backbone", "--dataset", str(dataset), "--data-root", str(root)]
    size = [] if "--init" in more else ["--layers", "1", "--width", "24"]
    how = ["--steps", "2", "--batch-size", "3", "--device", "cpu", "--threads", "1"]
    return CliRunner().invoke(
        app, [*said, "--out", str(out), "--sampling", "stride:1", *size, *how, *more]
    )


def test_no_label_counts_and_none_needs_to_be_there(tmp_path):
    """Other labels, none at all, and ones that are no class of the dataset: the same bytes."""
    listed = tmp_path / "listed.yaml"
    listed.write_text("name: mine\nformat: csv\nlabels: {names: [a, b]}\n")
    kinds = {
        "right": ("aabb", "csv"),
        "permuted": ("abba", "csv"),
        "none": (["", "", "", ""], "csv"),
        "unknown": ("xyxz", listed),
    }
    for name, (labels, dataset) in kinds.items():
        root = make_table(tmp_path / name, labels)
        result = command(root, root / "out", dataset=dataset)
        assert result.exit_code == 0, result.output
        assert "on 4 videos" in result.stdout
    first = tmp_path / "right" / "out"
    for name in kinds:
        files = ("model.safetensors", "config.json", "training.json")
        for file in files[: 2 if name == "unknown" else 3]:  # another dataset by name
            assert (tmp_path / name / "out" / file).read_bytes() == (first / file).read_bytes(), (
                name
            )


def test_a_training_with_labels_starts_from_it_with_a_new_head(tmp_path):
    root = make_table(tmp_path / "data", "aabb")
    (root / "videos.csv").write_text(
        (root / "videos.csv").read_text().replace("3.mp4,b,train", "3.mp4,b,validation")
    )
    assert command(root, tmp_path / "start", "--init", "synthetic").exit_code == 0
    said = ["train-backbone", "--dataset", "csv", "--data-root", str(root), "--out"]
    how = ["--sampling", "stride:1", "--steps", "1", "--lr", "1e-12", "--batch-size", "3"]
    how += ["--device", "cpu", "--threads", "1", "--init", str(tmp_path / "start")]
    result = CliRunner().invoke(app, [*said, str(tmp_path / "out"), *how])
    assert result.exit_code == 0, result.output
    start = load_file(tmp_path / "start" / "model.safetensors")
    found = load_file(tmp_path / "out" / "model.safetensors")
    same = [name for name in start if not name.startswith("classifier")]
    assert all(torch.allclose(start[name], found[name], atol=1e-9) for name in same)
    assert (len(start["classifier.weight"]), len(found["classifier.weight"])) == (1, 2)


def test_another_recipe_does_not_go_on(tmp_path):
    root = make_table(tmp_path / "data", ["", "", ""])
    assert command(root, tmp_path / "out").exit_code == 0
    settings = json.loads((tmp_path / "out" / "training.json").read_text())
    assert (settings["mask_ratio"], settings["smallest_crop"], settings["colour"]) == (
        0.9,
        0.4,
        0.3,
    )
    result = command(root, tmp_path / "out", "--mask-ratio", "0.75", "--no-crops", "--no-colour")
    assert result.exit_code == 1
    said = " ".join(result.stderr.split())
    assert "mask_ratio: 0.9 -> 0.75" in said
    assert "smallest_crop: 0.4 -> 1.0" in said
    assert "colour: 0.3 -> 0.0" in said


def test_other_families_are_refused_with_the_reason(tmp_path):
    with pytest.raises(ConfigError, match=r"'timesformer' cannot be pre-trained: .* VideoMAE's"):
        replace(CONFIG, family="timesformer", tubelet_size=1)


@pytest.mark.parametrize("ratio", ["0", "1", "0.01", "nan"])
def test_a_mask_that_hides_nothing_or_all_is_refused(tmp_path, ratio):
    root = make_table(tmp_path / "data", ["", ""])
    result = command(root, tmp_path / "out", "--mask-ratio", ratio)
    assert result.exit_code == 1
    assert "mask_ratio must hide at least one of 36 places" in " ".join(result.stderr.split())


def test_the_shape_is_the_checkpoints(tmp_path):
    root = make_table(tmp_path / "data", ["", ""])
    result = command(root, tmp_path / "out", "--init", "synthetic", "--width", "48")
    assert result.exit_code == 1
    assert "--width" in result.stderr
