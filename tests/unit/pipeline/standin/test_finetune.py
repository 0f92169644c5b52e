"""Training on a dataset's own videos: what is refused, what is left out, what is learnt from."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.errors import ConfigError
from pipeline.standin.finetune import FinetuneConfig, mix, mixed_loss, mixing, vary
from tests.videos import write_video

SMALL = ["--layers", "1", "--width", "24"]
TINY = ["--steps", "2", "--batch-size", "4", "--device", "cpu"]
CONFIG = FinetuneConfig(dataset="csv", data_digest="", smallest_crop=1.0, colour=0.0)


def bright(number, height, width):
    return np.full((height, width, 3), min(255, 20 + 5 * number), np.uint8)


def make_table(root, rows, long=20):
    """Videos by (name, label, split, group, frames or None for long enough)."""
    lines = ["path,label,split,group"]
    for name, label, split, group, frames in rows:
        write_video(root / f"{name}.mp4", frames or long, frame=bright)
        lines.append(f"{name}.mp4,{label},{split},{group}")
    (root / "videos.csv").write_text("\n".join(lines) + "\n")
    return root


def rows():
    made = [(f"t{i}", "ab"[i % 2], "train", f"g{i}", None) for i in range(6)]
    return made + [(f"v{i}", "ab"[i % 2], "validation", f"h{i}", None) for i in range(2)]


def train(root, out, *more):
    command = ["train-backbone", "--dataset", "csv", "--data-root", str(root), "--out", str(out)]
    shape = [] if "--init" in more else SMALL
    return CliRunner().invoke(app, [*command, "--threads", "1", *TINY, *shape, *more])


def weights(out):
    from safetensors.torch import load_file

    return load_file(out / "model.safetensors")


@pytest.mark.parametrize("start", [[], ["--init", "synthetic"]], ids=["scratch", "videomae"])
def test_a_timesformer_trains_on_a_table(tmp_path, start):
    root = make_table(tmp_path, rows())
    family = ["--family", "timesformer", "--sampling", "stride:1", "--steps", "1", *start]
    result = train(root, tmp_path / "out", *family)
    assert result.exit_code == 0, result.output
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (config["model_type"], config["attention_type"]) == ("timesformer", "joint_space_time")
    assert (config["num_frames"], config["id2label"]) == (8, {"0": "a", "1": "b"})
    assert config["hidden_size"] == (96 if start else 24)


def test_mixed_clips_are_the_two_in_the_shares_of_their_labels():
    """Shares of Beta(alpha, alpha): symmetric, of variance 1 / (4 (2 alpha + 1))."""
    frames = torch.tensor([0, 100, 200], dtype=torch.uint8).view(3, 1).expand(3, 5)
    mixed = mix(frames, 0.75, torch.tensor([1, 2, 0]))
    assert mixed.tolist() == [[25] * 5, [125] * 5, [150] * 5]
    assert mix(frames, 1.0, torch.tensor([1, 2, 0])) is frames
    config = replace(CONFIG, mixup=0.4)
    shares, others = zip(*(mixing(config, step, 6) for step in range(400)), strict=True)
    assert np.mean(shares) == pytest.approx(0.5, abs=0.05)
    assert np.var(shares) == pytest.approx(1 / (4 * 1.8), abs=0.02)
    assert all(sorted(other.tolist()) == list(range(6)) for other in others)
    assert mixing(config, 3, 6)[0] == shares[3]
    assert {mixing(CONFIG, step, 6)[0] for step in range(9)} == {1.0}


def test_the_loss_of_a_mixture_is_that_of_both_labels_by_their_shares():
    """Logarithms of probabilities (.7, .2, .1) and (.5, .25, .25), without smoothing."""
    logits = torch.tensor([[0.7, 0.2, 0.1], [0.5, 0.25, 0.25]]).log()
    labels, other = torch.tensor([0, 2]), torch.tensor([1, 0])
    first = 0.75 * np.log(0.7) + 0.25 * np.log(0.1)
    second = 0.75 * np.log(0.25) + 0.25 * np.log(0.5)
    found = mixed_loss(logits, labels, 0.75, other, 0.0)
    assert found.item() == pytest.approx(-(first + second) / 2)
    alone = -(np.log(0.7) + np.log(0.25)) / 2
    assert mixed_loss(logits, labels, 1.0, other, 0.0).item() == pytest.approx(alone)


def test_mixing_is_part_of_the_recipe_and_changes_what_is_learnt(tmp_path):
    root = make_table(tmp_path, rows())
    options = ["--sampling", "stride:1", "--steps", "1"]
    train(root, tmp_path / "plain", *options)
    result = train(root, tmp_path / "mixed", *options, "--mixup", "0.4")
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "mixed/training.json").read_text())["mixup"] == 0.4
    assert (tmp_path / "mixed/model.safetensors").read_bytes() != (
        tmp_path / "plain/model.safetensors"
    ).read_bytes()
    refused = train(root, tmp_path / "other", "--mixup", "-1")
    assert refused.exit_code == 1
    assert "mixup must be at least 0" in refused.stderr


def test_each_part_of_the_recipe_can_be_left_out(tmp_path):
    root = make_table(tmp_path, rows())
    for i in range(6):
        write_video(root / f"t{i}.mp4", 20)  # with something in it to crop
    parts = {
        "whole": ([], (0.1, 0.4, 0.3)),
        "hard": (["--label-smoothing", "0"], (0.0, 0.4, 0.3)),
        "uncropped": (["--no-crops"], (0.1, 1.0, 0.3)),
        "same": (["--no-colour"], (0.1, 0.4, 0.0)),
    }
    made = set()
    for name, (options, expected) in parts.items():
        result = train(root, tmp_path / name, "--sampling", "stride:1", "--steps", "1", *options)
        assert result.exit_code == 0, result.output
        settings = json.loads((tmp_path / name / "training.json").read_text())
        asked = tuple(settings[n] for n in ("label_smoothing", "smallest_crop", "colour"))
        assert asked == expected
        made.add((tmp_path / name / "model.safetensors").read_bytes())
    assert len(made) == len(parts)


@pytest.mark.parametrize(
    "change", [{"label_smoothing": 1.0}, {"smallest_crop": 0.0}, {"colour": 1.1}], ids=str
)
def test_a_recipe_out_of_range_is_refused(change):
    with pytest.raises(ConfigError, match=next(iter(change))):
        replace(CONFIG, **change)


@pytest.mark.parametrize("option", ["--no-crops", "--no-colour", "--label-smoothing=0.1"])
def test_the_rendered_benchmark_has_a_recipe_of_its_own(tmp_path, option):
    command = ["train-backbone", "--data-root", str(tmp_path), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, [*command, option])
    assert result.exit_code == 1
    assert option.partition("=")[0] in result.stderr
    assert "a recipe of its own" in " ".join(result.stderr.split())


def test_a_table_of_videos_trains_and_resumes_to_the_same_weights(tmp_path):
    root = make_table(tmp_path, rows())
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    result = train(root, whole, "--sampling", "stride:1", "--steps", "4")
    assert result.exit_code == 0, result.output
    assert "on 2 videos" in result.stdout
    assert json.loads((whole / "config.json").read_text())["id2label"] == {"0": "a", "1": "b"}
    train(root, parts, "--sampling", "stride:1", "--steps", "2")
    assert train(root, parts, "--sampling", "stride:1", "--steps", "4").exit_code == 0
    # The rate is one warm-up for both, so the two halves are the whole.
    one, other = weights(whole), weights(parts)
    state = torch.load(parts / "state.pt", weights_only=True)
    assert state["step"] == 4
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_short_videos_are_left_out_by_name_and_the_others_keep_their_labels(tmp_path, caplog):
    table = rows()
    table[0] = (*table[0][:4], 15)  # class a; the clip needs 16 frames
    result = train(make_table(tmp_path, table), tmp_path / "out", "--sampling", "stride:1")
    assert result.exit_code == 0, result.output
    assert "left out 1 of 6 train videos" in caplog.text
    assert "t0 (15 frames)" in caplog.text


def test_short_videos_close_their_gaps(tmp_path):
    from datasets_spec.types import Video
    from pipeline.decode import DecodeRequest
    from pipeline.standin.footage import load_footage

    frames = [20, 15, 22, 16]
    for i, count in enumerate(frames):
        write_video(
            tmp_path / f"{i}.mp4",
            count,
            frame=lambda n, h, w, i=i: np.full((h, w, 3), 50 * (i + 1), np.uint8),
        )
    videos = [Video(str(i), f"{i}.mp4", i, "train") for i in range(4)]
    request = DecodeRequest(path="", size=32, short_side=32, sampling="stride:1")
    for _ in range(2):  # the second reads what the first left
        found = load_footage(
            videos, tmp_path, tmp_path / "cache", "train", request, 0, lambda done, total: None
        )
        assert found.labels.tolist() == [0, 2, 3]
        assert found.frames.mean((1, 2, 3, 4)) == pytest.approx([50, 150, 200], abs=4)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: [*t, ("x", "c", "validation", "z", None)], "without training videos: c"),
        (lambda t: [*t, ("x", "a", "validation", "g3", None)], "groups in split .*: g3"),
        (lambda t: [*t, ("x", "a", "test", "g3", None)], "and in 'test': g3"),
        (lambda t: [(*r[:4], 15) if r[1] == "b" else r for r in t], "without training videos: b"),
    ],
    ids=[
        "no training videos",
        "group in both",
        "group in the test split too",
        "all of a class too short",
    ],
)
def test_bad_tables_are_refused_by_name(tmp_path, change, said):
    root = make_table(tmp_path, change(rows()))
    result = train(root, tmp_path / "out", "--sampling", "stride:1")
    assert result.exit_code == 1
    assert "Traceback" not in result.output
    assert re.search(said, " ".join(result.stderr.split())), result.stderr


def test_a_split_that_holds_training_videos_is_refused(tmp_path):
    result = train(make_table(tmp_path, rows()), tmp_path / "out", "--validation-split", "all")
    assert result.exit_code == 1
    assert "t0.mp4, t1.mp4, t2.mp4, t3.mp4, t4.mp4 and 1 more" in " ".join(result.stderr.split())


def test_it_starts_from_a_checkpoint_with_a_new_head(tmp_path, caplog):
    result = train(
        make_table(tmp_path, rows()),
        tmp_path / "out",
        *("--sampling", "stride:1", "--init", "synthetic", "--lr", "1e-9"),
    )
    assert result.exit_code == 0, result.output
    assert "new head" in caplog.text
    from pipeline.backbones import load_backbone

    shipped = load_backbone("synthetic").model.state_dict()
    trained = load_backbone(str(tmp_path / "out")).model.state_dict()
    same = [name for name in shipped if not name.startswith("classifier")]
    # A rate of 1e-9 moves nothing visibly: these are the shipped weights, all layers of them.
    assert all(torch.allclose(shipped[name], trained[name], atol=1e-6) for name in same)
    assert len(trained["classifier.weight"]) == 2


def test_the_shape_is_the_checkpoints(tmp_path):
    root = make_table(tmp_path, rows())
    result = train(root, tmp_path / "out", "--init", "synthetic", "--layers", "3")
    assert result.exit_code == 1
    assert "--layers" in result.stderr


def test_the_mirror_is_only_where_the_dataset_allows_it():
    row = torch.arange(48, dtype=torch.uint8)
    ramp = row[:, None].expand(64, 2, 48, 48, 3)
    generator = torch.Generator().manual_seed(0)
    assert torch.equal(vary(ramp, CONFIG, generator), ramp)
    mirrored = vary(ramp, replace(CONFIG, flip=True), generator)
    kinds = [
        "same" if torch.equal(m, r) else "turned" if torch.equal(m, r.flip(2)) else "other"
        for m, r in zip(mirrored, ramp, strict=True)
    ]
    assert set(kinds) == {"same", "turned"}
    assert 16 < kinds.count("turned") < 48
