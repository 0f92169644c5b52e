"""ViViT on some of its tokens is its own layers on them; its pixels are normalised twice."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import VivitForVideoClassification, VivitImageProcessor

from pipeline.backbones import load_backbone
from pipeline.backbones.tokens import Reduction, reduce
from pipeline.errors import BackboneError
from tests.checkpoints import save_vivit

SIZES = {"image_size": 24, "num_frames": 6}
CLIPS = np.random.default_rng(0).integers(0, 256, (2, 6, 24, 24, 3), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_vivit(tmp_path, **SIZES)


def subset_logits(model: VivitForVideoClassification, pixels: Tensor, kept: Tensor) -> Tensor:
    """CLS and the tubelets `kept`, (K,) row-major, through the plain model's layers."""
    everything = model.vivit.embeddings(pixels)
    hidden = torch.cat([everything[:, :1], everything[:, 1 + kept]], dim=1)
    for layer in model.vivit.layers:
        hidden = layer(hidden)
    return model.classifier(model.vivit.layernorm(hidden)[:, 0])


@torch.no_grad()
def test_some_tokens_pass_the_models_own_layers(folder: Path):
    backbone = load_backbone(str(folder)).double()
    plain = VivitForVideoClassification.from_pretrained(folder).eval().double()
    pixels = backbone.pixel_values(CLIPS)
    kept = torch.tensor([4, 1, 26, 13])
    expected = subset_logits(plain, pixels, kept)
    keep = torch.cat([torch.tensor([0]), 1 + kept]).expand(2, -1)
    some = reduce(backbone.embed(pixels), Reduction(keep))
    torch.testing.assert_close(backbone.run(some), expected, rtol=0, atol=1e-12)
    assert (expected - plain(pixels).logits).abs().max() > 1e-3


def test_pixels_are_scaled_moved_and_normalised_once_more(folder: Path):
    backbone = load_backbone(str(folder))
    by_hand = ((CLIPS / 127.5 - 1) - 0.5) / 0.5
    ours = backbone.pixel_values(CLIPS).movedim(2, -1)
    np.testing.assert_allclose(ours, by_hand, rtol=0, atol=1e-5)
    processor = VivitImageProcessor.from_pretrained(folder)
    theirs = processor([list(clip) for clip in CLIPS], return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(backbone.pixel_values(CLIPS), theirs, rtol=0, atol=1e-5)
    assert ours.min() < -2.9
    assert ours.max() == pytest.approx(1)


def rewrite(folder: Path, *changes: tuple[str, str]) -> None:
    weights = load_file(folder / "model.safetensors")
    for old, new in changes:
        weights = {re.sub(old, new, key): value for key, value in weights.items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def test_files_name_layers_otherwise_than_the_model(folder: Path):
    stored = load_file(folder / "model.safetensors")
    layer = load_backbone(str(folder)).model.vivit.layers[2]
    names = {"attention.attention.query": layer.attention.q_proj, "output.dense": layer.mlp.fc2}
    for name, module in names.items():
        weight = stored[f"vivit.encoder.layer.2.{name}.weight"]
        assert torch.equal(module.weight, weight)


def test_a_layer_of_another_name_is_refused(folder: Path):
    rewrite(folder, (r"layer\.2\.output\.dense", "layer.2.output.other"))
    with pytest.raises(BackboneError, match=r"missing keys: vivit\.layers\.2\.mlp\.fc2"):
        load_backbone(str(folder))


@pytest.mark.parametrize(
    ("sizes", "fault"),
    [({"num_frames": 5}, "no multiple of tubelet_size 2"), ({"image_size": 20}, "no multiple of")],
)
def test_sizes_that_no_clip_has_are_refused(tmp_path: Path, sizes: dict, fault: str):
    with pytest.raises(BackboneError, match=fault):
        load_backbone(str(save_vivit(tmp_path, **(SIZES | sizes))))
