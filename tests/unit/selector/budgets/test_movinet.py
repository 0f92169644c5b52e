"""MoViNet is the released one: its keys, its numbers, its cost; other checkpoints are refused."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from pipeline.backbones import load_backbone
from pipeline.errors import ConfigError
from selector.budgets.confidence_names import load_confidence
from selector.budgets.movinet import VARIANTS, MoViNet, Pool, _padded, _rounded, load_movinet
from selector.methods.cost import count_gmacs, without_data

KEYS = {"A0": 385, "A1": 592, "A2": 638}
PARAMETERS = {"A0": 3_111_799, "A1": 4_690_296, "A2": 5_249_562}


def shapes(name: str, num_classes: int = 600) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        model = MoViNet(VARIANTS[name], num_classes)
    return {key: tuple(value.shape) for key, value in model.state_dict().items()}


def drawn(wanted: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """The weights that the reference numbers are of: from each key's checksum."""
    state = {}
    for key, shape in wanted.items():
        if key.endswith("num_batches_tracked"):
            state[key] = torch.tensor(0)
            continue
        v = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(shape)
        kind = key.rpartition(".")[2]
        if key.endswith("alpha"):
            v = 0.5 + 0.1 * v
        elif kind == "running_var":
            v = 1 + 0.2 * np.abs(v)
        elif key.endswith("norm.weight"):
            v = 1 + 0.1 * v
        elif kind in ("bias", "running_mean"):
            v = 0.1 * v
        else:
            v = 1.4 * v / np.sqrt(np.prod(shape[1:]))
        state[key] = torch.from_numpy(np.asarray(v, dtype=np.float32))
    return state


@pytest.mark.parametrize("name", VARIANTS)
def test_keys_and_parameters_are_the_released_ones(name):
    found = shapes(name)
    assert len(found) == KEYS[name]
    with torch.device("meta"):
        model = MoViNet(VARIANTS[name], 600)
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS[name]


@pytest.mark.parametrize("name", VARIANTS)
def test_every_key_has_the_released_shape(peers_dir: Path, name: str):
    listed = json.loads((peers_dir / "movinet" / f"{name}_base_keys.json").read_text())
    assert shapes(name) == {key: tuple(shape) for key, shape, _ in listed}


@pytest.mark.parametrize("name", ["A0", "A2"])
@torch.no_grad()
def test_its_answers_are_those_of_the_release(peers_dir: Path, name: str):
    known = np.load(peers_dir / "movinet" / f"{name}_base_recipe_outputs.npz")
    model = load_movinet(name, drawn(shapes(name))).double()
    cases = [key.removesuffix("_logits") for key in known.files if key.endswith("_logits")]
    assert len(cases) >= 2
    for case in cases:
        frames, side = (int(part[1:]) for part in case.split("_"))
        expected = known[f"{case}_logits"]
        generator = np.random.default_rng(1000 + frames * side)
        shape = (len(expected), 3, frames, side, side)
        clips = torch.from_numpy(generator.random(shape).astype(np.float32)).double()
        np.testing.assert_allclose(model(clips), expected, rtol=0, atol=1e-9, err_msg=case)


@torch.no_grad()
def test_a_small_classifier_in_half_precision_answers_as_the_release(peers_dir: Path):
    folder = peers_dir / "movinet"
    known = np.load(folder / "A0_small_head_outputs.npz")
    model = load_movinet("A0", load_file(folder / "A0_small_head_fp16.safetensors")).double()
    cases = {"logits": (42, tuple(known["input_shape"])), "logits_97": (43, (1, 3, 4, 97, 97))}
    for case, (seed, shape) in cases.items():
        frames = np.random.default_rng(seed).random(shape).astype(np.float32)
        ours = model(torch.from_numpy(frames).double())
        np.testing.assert_allclose(ours, known[case], rtol=0, atol=1e-9, err_msg=case)


@pytest.mark.parametrize(
    ("name", "frames", "side", "gmacs"),
    [
        ("A0", 16, 172, 0.844),
        ("A0", 8, 224, 0.663),
        ("A0", 50, 172, 2.631),
        ("A1", 16, 172, 1.879),
        ("A2", 16, 224, 3.701),
    ],
)
def test_it_costs_what_is_published(name, frames, side, gmacs):
    with torch.device("meta"):
        model = MoViNet(VARIANTS[name], 600).eval()
    clip = torch.empty(1, 3, frames, side, side, device="meta")
    assert count_gmacs(without_data(model), clip) == pytest.approx(gmacs, abs=0.0006)


@pytest.mark.parametrize("size", range(5, 13))
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (5, 1), (5, 2)])
def test_same_padding_by_hand(size, kernel, stride):
    """The first window of every output begins where TensorFlow's does, and all are complete."""
    row = torch.arange(1.0, size + 1).expand(1, 1, 1, size, size)
    padded = _padded(row, kernel, stride)[0, 0, 0, -1].tolist()
    padded_row = _padded(row, kernel, stride)[0, 0, 0, padded.count(0) // 2].tolist()
    outputs = -(-size // stride)
    total = max((outputs - 1) * stride + kernel - size, 0)
    assert padded_row == [0] * (total // 2) + [*range(1, size + 1)] + [0] * (total - total // 2)


@pytest.mark.parametrize("size", [6, 7])
def test_padding_is_no_part_of_the_mean(size):
    image = torch.arange(float(size * size)).reshape(1, 1, 1, size, size)
    pooled = Pool()(image)[0, 0, 0]
    offset = 1 if size % 2 else 0  # pixels above and left of the first window
    for y in range(pooled.shape[0]):
        for x in range(pooled.shape[1]):
            rows = [r for r in range(2 * y - offset, 2 * y - offset + 3) if 0 <= r < size]
            columns = [c for c in range(2 * x - offset, 2 * x - offset + 3) if 0 <= c < size]
            values = [image[0, 0, 0, r, c].item() for r in rows for c in columns]
            assert pooled[y, x].item() == pytest.approx(sum(values) / len(values))


def test_widths_round_to_eights_and_never_far_down():
    assert [_rounded(width) for width in (2, 6, 20, 28, 46, 10.5)] == [8, 8, 24, 32, 48, 16]


def test_a_fresh_one_ignores_its_blocks():
    """As published: each alpha starts at zero."""
    torch.manual_seed(0)
    model = MoViNet(VARIANTS["A0"], 4, hidden=8).eval()
    clip = torch.rand(1, 3, 2, 32, 32)
    with torch.no_grad():
        before = model(clip)
        for block in model.blocks.values():
            block.deep.conv_1.conv3d.weight.mul_(3)
        assert torch.equal(model(clip), before)
        model.blocks["b0_l0"].alpha.fill_(1)
        assert not torch.equal(model(clip), before)


def changed(**others: Tensor | None) -> dict[str, Tensor]:
    state = drawn(shapes("A0", 5))
    for key, value in others.items():
        name = key.replace("__", ".")
        if value is None:
            del state[name]
        else:
            state[name] = value
    return state


@pytest.mark.parametrize(
    ("name", "state", "reason"),
    [
        ("A3", {}, "no MoViNet 'A3' here; known are A0, A1, A2"),
        ("A0", {"conv1.conv_1.conv2d.weight": torch.ones(1)}, "streaming MoViNet"),
        ("A0", {"head.weight": torch.ones(1)}, r"no MoViNet: it has no classifier\.3"),
        ("A0", changed(blocks__b1_l2__alpha=None), r"not MoViNet A0 \(missing: blocks\.b1_l2\.al"),
        ("A0", changed(other__weight=torch.ones(1)), r"unexpected: other\.weight"),
        (
            "A0",
            changed(conv1__conv_1__norm__bias=torch.ones(9)),
            r"of another shape: conv1\.conv_1\.norm\.bias",
        ),
        ("A1", drawn(shapes("A0", 5)), "; it is A0"),
    ],
)
def test_other_checkpoints_are_refused(name, state, reason):
    with pytest.raises(ConfigError, match=reason):
        load_movinet(name, state)


def test_streams_of_the_release_are_refused(peers_dir: Path):
    listed = json.loads((peers_dir / "movinet" / "A0_stream_keys.json").read_text())
    with pytest.raises(ConfigError, match="take the base checkpoint of A0"):
        load_movinet("A0", {key: torch.zeros(shape) for key, shape in listed})


@torch.no_grad()
def test_it_judges_a_clip_by_its_pixels_between_0_and_1(tiny_backbone: Path, tmp_path: Path):
    """At its own side; a training's file serves too."""
    state = drawn(shapes("A0", 5))
    wrapped = {f"module.{key}": value for key, value in state.items()}
    torch.save({"state_dict": wrapped, "epoch": 3}, tmp_path / "a0.pth")
    backbone = load_backbone(str(tiny_backbone))
    confidence = load_confidence(f"movinet:A0@{tmp_path / 'a0.pth'}", backbone)
    clips = np.random.default_rng(0).integers(0, 256, (2, 4, 16, 16, 3), dtype=np.uint8)
    frames = torch.from_numpy(clips).permute(0, 1, 4, 2, 3) / 255
    big = F.interpolate(frames.flatten(0, 1), [172, 172], mode="bilinear", antialias=True)
    logits = load_movinet("A0", state)(big.unflatten(0, (2, 4)).transpose(1, 2))
    pixels = backbone.pixel_values(clips)
    judged = confidence(pixels, backbone.embed(pixels), torch.empty(0))
    torch.testing.assert_close(judged.confidence, logits.softmax(-1).amax(-1), rtol=0, atol=1e-5)
    assert confidence.gmacs == pytest.approx(0.844 / 4, abs=0.001)


def test_averages_are_part_of_what_is_loaded():
    """A mean or variance that stayed at its start would pass a check of the parameters alone."""
    state = drawn(shapes("A0", 5))
    model = load_movinet("A0", state)
    loaded = model.state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in state.items())
    assert not model.training
    with torch.no_grad():
        clip = torch.rand(1, 3, 2, 32, 32)
        assert F.softmax(model(clip), -1).sum() == pytest.approx(1, abs=1e-5)
