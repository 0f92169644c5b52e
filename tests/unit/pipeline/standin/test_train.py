"""The training of a tiny backbone: it starts, stops, resumes exactly, and leaves a checkpoint."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from datasets_spec.synthetic import make
from datasets_spec.synthetic.actors import NO_ACTION
from datasets_spec.synthetic.scene import draw_scene
from pipeline.backbones import load_backbone
from pipeline.cli import app
from pipeline.errors import ConfigError, StoreError
from pipeline.standin import train
from pipeline.standin.checkpoint import claimed
from pipeline.standin.clips import load_clips
from pipeline.standin.config import FAMILY_SIZES, BackboneConfig
from pipeline.standin.loop import LOG, Schedule, read_log
from pipeline.standin.train import Trainer, learning_rate

TINY = BackboneConfig(
    hidden_size=24, num_layers=1, num_heads=2, steps=6, batch_size=8, warmup_steps=2, actor_steps=4
)
NAMES = [str(i) for i in range(18)]
SCHEDULE = Schedule(validate_every=4, save_every=2, validation_clips=5)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "synthetic"
    make(root, 40, seed=1, workers=0)
    return root


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def clips(data, cache):
    return [
        load_clips(data, split, cache, TINY, 0, lambda done, total: None)
        for split in ("train", "validation")
    ]


def run(config, clips, out):
    with claimed(out, config):
        trainer = Trainer(config, clips[0], NAMES, out)
        return trainer, trainer.run(clips[1], SCHEDULE, lambda step, loss: None)


def test_clips_carry_labels_and_token_actions(clips):
    train_clips, validation = clips
    assert (len(train_clips), len(validation)) == (28, 10)
    assert train_clips.frames.shape == (28, 16, 48, 48, 3)
    assert train_clips.actions.shape == (28, *TINY.grid)
    scenes = {scene.label for scene in (draw_scene(1, i) for i in range(40))}
    assert set(train_clips.labels.tolist()) <= scenes
    for label, shown in zip(train_clips.labels, train_clips.actions, strict=True):
        assert (shown == label).any()
        assert (shown == NO_ACTION).mean() > 0.3


def test_decoded_clips_are_read_from_the_cache(data, cache, clips, monkeypatch):
    monkeypatch.setattr("pipeline.standin.loop.DecodePool", None)
    again = load_clips(data, "train", cache, TINY, 0, lambda done, total: None)
    assert np.array_equal(again.frames, clips[0].frames)


def test_a_damaged_video_is_left_out_and_named(data, tmp_path, caplog):
    broken = tmp_path / "data"
    for path in data.rglob("*"):
        if path.is_file():
            target = broken / path.relative_to(data)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    (broken / "20bn-something-something-v2" / "3.webm").write_bytes(b"no video")
    found = load_clips(broken, "train", tmp_path / "c", TINY, 0, lambda done, total: None)
    assert len(found) == len(found.frames) == len(found.actions) == 27
    assert "3.webm" in caplog.text


def test_a_resumed_training_equals_an_uninterrupted_one(clips, tmp_path, monkeypatch):
    whole, top1 = run(TINY, clips, tmp_path / "whole")
    real = Trainer.train_step

    def stop_at_the_fifth(self):
        if self.step == 4:
            raise KeyboardInterrupt
        return real(self)

    monkeypatch.setattr(train.Trainer, "train_step", stop_at_the_fifth)
    with pytest.raises(KeyboardInterrupt):
        run(TINY, clips, tmp_path / "cut")
    monkeypatch.undo()
    with (tmp_path / "cut" / LOG).open("a") as file:  # killed after a log line, before its save
        file.write(json.dumps({"step": 5}) + "\n")
    resumed, again = run(TINY, clips, tmp_path / "cut")
    assert again == top1
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], tensor), name
    weights = [load_file(tmp_path / f / "model.safetensors") for f in ("whole", "cut")]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert [entry["step"] for entry in read_log(tmp_path / "cut")] == [4, 6]


def test_training_learns_its_own_clips(clips, tmp_path):
    config = BackboneConfig(
        **{**TINY.to_dict(), "steps": 40, "hidden_size": 48, "learning_rate": 5e-3}
    )
    with claimed(tmp_path / "b", config):
        trainer = Trainer(config, clips[0], NAMES, tmp_path / "b")
    losses = [trainer.train_step() for _ in range(40)]
    assert np.mean(losses[-10:]) < np.mean(losses[:10]) - 0.1


@pytest.mark.parametrize("family", FAMILY_SIZES)
def test_the_checkpoint_loads_as_a_backbone(family, data, tmp_path):
    config = replace(TINY, family=family, **FAMILY_SIZES[family])
    clips = [
        load_clips(data, split, tmp_path / "cache", config, 0, lambda done, total: None)
        for split in ("train", "validation")
    ]
    trainer, _ = run(config, clips, tmp_path / "backbone")
    backbone = load_backbone(str(tmp_path / "backbone"))
    assert backbone.model_type == family
    assert backbone.grid == config.grid == (8, 6, 6)
    assert backbone.num_classes == len(NAMES)
    assert backbone.label_names == NAMES
    frames = np.array(clips[1].frames[:4])
    with torch.no_grad():
        theirs = backbone(backbone.pixel_values(frames))
        ours = trainer.model(backbone.pixel_values(frames)).logits
    torch.testing.assert_close(theirs, ours, atol=1e-5, rtol=1e-4)


def test_other_settings_or_a_foreign_folder_are_refused(clips, tmp_path):
    with claimed(tmp_path / "a", TINY):
        pass
    longer = BackboneConfig(**{**TINY.to_dict(), "steps": 9})
    with claimed(tmp_path / "a", longer):  # the number of steps may change
        pass
    other = BackboneConfig(**{**TINY.to_dict(), "hidden_size": 48})
    with pytest.raises(ConfigError, match="hidden_size: 24 -> 48"), claimed(tmp_path / "a", other):
        pass
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "thesis.txt").write_text("mine")
    with (
        pytest.raises(ConfigError, match="not an empty folder"),
        claimed(tmp_path / "b", TINY),
    ):
        pass


def test_two_trainings_in_one_folder_are_refused(tmp_path):
    with (
        claimed(tmp_path, TINY),
        pytest.raises(StoreError, match="another run is writing"),
        claimed(tmp_path, TINY),
    ):
        pass


def test_the_learning_rate_is_constant_until_its_last_part():
    config = BackboneConfig(steps=1000)
    rates = [learning_rate(config, step) for step in range(1000)]
    assert rates[0] < rates[149] == rates[640] == config.learning_rate
    assert rates[-1] < 1e-3 * config.learning_rate
    longer = BackboneConfig(steps=2000)
    assert [learning_rate(longer, step) for step in range(640)] == rates[:640]


def test_the_command_trains_and_says_how_well(data, tmp_path):
    out = tmp_path / "b"
    options = ["--steps", "2", "--layers", "1", "--width", "24", "--batch-size", "8"]
    command = ["train-backbone", "--data-root", str(data), "--out", str(out), *options]
    result = CliRunner().invoke(app, [*command, "--device", "cpu", "--threads", "1"])
    assert result.exit_code == 0, result.output
    assert "top-1" in result.stdout
    assert "on 10 videos" in result.stdout
    assert "2/2 steps" in result.stderr
    config = json.loads((out / "config.json").read_text())
    assert config["id2label"]["0"] == "Moving something left"
    again = CliRunner().invoke(app, [*command, "--device", "cpu", "--seed", "1"])
    assert again.exit_code == 1
    assert "seed: 0 -> 1" in again.stderr


def test_no_benchmark_there_is_one_line(tmp_path):
    command = ["train-backbone", "--data-root", str(tmp_path / "no"), "--out", str(tmp_path / "b")]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1
    assert not Path(tmp_path / "b").exists()
