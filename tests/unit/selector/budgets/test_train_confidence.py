"""A MoViNet trained on a dataset's clips is a confidence there, and sees what it was trained on."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from datasets_spec.synthetic.actions import ACTIONS
from pipeline.backbones import load_backbone
from pipeline.cli import app
from pipeline.cli.train_confidence import _vary
from pipeline.errors import ConfigError
from pipeline.standin.checkpoint import claimed
from pipeline.standin.footage import Footage
from pipeline.standin.loop import Schedule
from selector.budgets.confidence_names import load_confidence
from selector.budgets.movinet import VARIANTS, MoViNet
from selector.budgets.train_confidence import ConfidenceConfig, ConfidenceTrainer, with_classes
from tests.checkpoints import save_videomae
from tests.videos import write_video

NUM_CLASSES = 3
CLASS_OF = {action.template: number for number, action in enumerate(ACTIONS)}


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    return load_backbone(str(save_videomae(tmp_path_factory.mktemp("backbone"))))


@pytest.fixture(scope="module")
def clips(backbone):
    """Grey clips whose brightness is their class."""
    labels = np.arange(12) % NUM_CLASSES
    shape = (backbone.num_frames, backbone.image_size, backbone.image_size, 3)
    noise = np.random.default_rng(0).integers(0, 30, (12, *shape))
    return Footage((noise + 100 * labels[:, None, None, None, None]).astype(np.uint8), labels)


@pytest.fixture
def config(backbone):
    return ConfidenceConfig(
        dataset="test",
        data_digest="",
        backbone_digest=backbone.digest,
        frames=2,
        pixels=12,
        hidden=16,
        image_size=backbone.image_size,
        steps=4,
        batch_size=6,
        warmup_steps=2,
    )


def train(config, clips, backbone, out, *, stop_after=None):
    with claimed(out, config):
        trainer = ConfidenceTrainer(
            config,
            clips,
            lambda frames, labels, _: (frames, labels),
            NUM_CLASSES,
            backbone,
            out,
            None,
        )

        def on_step(step, loss):
            if step == stop_after:
                raise KeyboardInterrupt

        trainer.run(clips, Schedule(validate_every=20, save_every=2), on_step)
        return trainer


def test_it_learns_and_what_it_writes_is_a_confidence(config, clips, backbone, tmp_path):
    trainer = train(
        replace(config, steps=20, batch_size=12, decay_share=0.5), clips, backbone, tmp_path
    )
    assert trainer.validate(clips, 12) > 0.6
    confidence = load_confidence(f"movinet:A0@{tmp_path / 'movinet.pth'}", backbone)
    pixels = backbone.pixel_values(np.array(clips.frames))
    with torch.no_grad():
        # By hand: frames 1 and 3 of 4, in 0..1, at 12 pixels a side.
        raw = torch.from_numpy(clips.frames[:, [1, 3]]).permute(0, 1, 4, 2, 3).float() / 255
        seen = torch.nn.functional.interpolate(
            raw.flatten(0, 1), [12, 12], mode="bilinear", antialias=True
        )
        seen = seen.unflatten(0, (12, 2)).transpose(1, 2)
        expected = trainer.model.eval()(seen).softmax(1).amax(1)
        found = confidence(pixels, backbone.embed(pixels), torch.empty(0)).confidence
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    assert confidence.gmacs == trainer.confidence.gmacs > 0


def test_a_resumed_training_equals_an_uninterrupted_one(config, clips, backbone, tmp_path):
    whole = train(config, clips, backbone, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(config, clips, backbone, tmp_path / "cut", stop_after=3)
    resumed = train(config, clips, backbone, tmp_path / "cut")
    for key, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[key]), key


def test_another_number_of_classes_gets_a_new_last_layer():
    model = MoViNet(VARIANTS["A0"], 7, hidden=16)
    before = model.classifier[0].conv_1["conv3d"].weight
    model = with_classes(model, 5, seed=0)
    assert model.classifier[-1].conv_1["conv3d"].out_channels == 5
    assert model.classifier[0].conv_1["conv3d"].weight is before
    last = model.classifier[-1].conv_1["conv3d"]
    assert with_classes(model, 5, seed=0).classifier[-1].conv_1["conv3d"] is last


def test_settings_that_cannot_work_are_refused(config):
    with pytest.raises(ConfigError, match="variant must be one of A0, A1, A2, got 'A3'"):
        replace(config, variant="A3")
    with pytest.raises(ConfigError, match="frames must be at least 1, got 0"):
        replace(config, frames=0)


def test_the_command_says_how_to_use_what_it_made(tmp_path):
    lines = ["path,label,split"]
    for number, split in enumerate(["train"] * 4 + ["validation"] * 2):
        write_video(tmp_path / f"{number}.mp4", 20)
        lines.append(f"{number}.mp4,{'ab'[number % 2]},{split}")
    (tmp_path / "videos.csv").write_text("\n".join(lines) + "\n")
    command = ["train-confidence", "--dataset", "csv", "--data-root", str(tmp_path)]
    options = ["--steps", "1", "--batch-size", "4", "--frames", "2", "--pixels", "12"]
    command += ["--out", str(tmp_path / "out"), *options, "--device", "cpu", "--threads", "1"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert "on 2 videos" in result.stdout
    name = re.search(r"movinet:A0@\S+", result.stdout)[0]
    confidence = load_confidence(name, load_backbone("synthetic"))
    assert (confidence.wanted.num_frames, confidence.wanted.size) == (2, 12)
    other = CliRunner().invoke(app, [*command, "--seed", "1"])
    assert other.exit_code == 1
    assert "seed: 0 -> 1" in other.stderr


def test_clips_of_the_rendered_benchmark_vary_with_their_labels():
    """A bright spot that moves left: mirrored or backwards it moves right, both: left again."""
    left, right = (CLASS_OF[f"Moving [something] {side}"] for side in ("left", "right"))
    clip = torch.zeros(1, 4, 4, 4, 3, dtype=torch.uint8)
    for t in range(4):
        clip[0, t, :, 3 - t] = 200
    config = ConfidenceConfig(
        dataset="synthetic", data_digest="", backbone_digest="", frames=4, pixels=4, image_size=4
    )
    seen = set()
    for seed in range(12):
        generator = torch.Generator().manual_seed(seed)
        frames, labels = _vary(config)(clip, torch.tensor([left]), generator)
        at = frames[0, :, 0, :, 0].float().argmax(1)
        seen.add((int(labels), bool(at[-1] > at[0])))
    assert seen == {(left, False), (right, True)}
