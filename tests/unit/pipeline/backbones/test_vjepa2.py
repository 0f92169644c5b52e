"""V-JEPA 2: kept tokens keep their rotary positions, and a selector is told them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from transformers import VJEPA2ForVideoClassification, VJEPA2VideoProcessor

from pipeline.backbones import Backbone, load_backbone
from pipeline.backbones.tokens import Reduction, grid_tokens, reduce
from selector.methods.base import ClipBatch
from selector.methods.cost import CostModel, without_data
from selector.methods.rank.lite import LiteMethod
from tests.checkpoints import save_vjepa2
from tests.lite_models import make_model

SIZES = {"image_size": 24, "num_frames": 6, "hidden_size": 32}
CLIPS = np.random.default_rng(0).integers(0, 256, (2, 6, 24, 24, 3), dtype=np.uint8)
KEPT = torch.tensor([[26, 4, 1, 13], [2, 3, 5, 25]])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_vjepa2(tmp_path_factory.mktemp("vjepa2"), **SIZES)


@pytest.fixture
def backbone(folder: Path) -> Backbone:
    return load_backbone(str(folder)).double()


def sharpened(model: VJEPA2ForVideoClassification) -> VJEPA2ForVideoClassification:
    """With attention far from uniform, so that positions count."""
    with torch.no_grad():
        for layer in model.vjepa2.encoder.layer:
            layer.attention.query.weight.mul_(10)
            layer.attention.value.weight.mul_(10)
    return model


def subset_logits(model: VJEPA2ForVideoClassification, pixels: Tensor, ids: Tensor) -> Tensor:
    """The tubelets KEPT through the plain model's layers, rotated as tokens `ids` (B, K)."""
    encoder = model.vjepa2.encoder
    rows = torch.arange(len(KEPT))[:, None]
    hidden = encoder.embeddings(pixels)[rows, KEPT]
    for layer in encoder.layer:
        hidden = layer(hidden, ids)[0]
    return model.classifier(model.pooler(encoder.layernorm(hidden)))


@torch.no_grad()
def test_kept_tokens_keep_their_rotary_positions(folder: Path, backbone: Backbone):
    plain = VJEPA2ForVideoClassification.from_pretrained(folder).eval().double()
    sharpened(plain)
    sharpened(backbone.model)
    pixels = backbone.pixel_values(CLIPS)
    ours = backbone.run(reduce(backbone.embed(pixels), Reduction(KEPT)))
    torch.testing.assert_close(ours, subset_logits(plain, pixels, KEPT), rtol=0, atol=1e-12)
    restarted = subset_logits(plain, pixels, torch.arange(4).expand(2, -1))
    assert (ours - restarted).abs().max() > 1e-3


@torch.no_grad()
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_angles_are_the_models_own_in_half_precision(folder: Path, precision: str):
    """They are coarse there, in its code as here."""
    backbone = load_backbone(str(folder), precision=precision)
    plain = VJEPA2ForVideoClassification.from_pretrained(
        folder, dtype=backbone.dtype, attn_implementation="sdpa"
    )
    sharpened(plain.eval())
    sharpened(backbone.model)
    pixels = backbone.pixel_values(CLIPS)
    assert torch.equal(backbone(pixels), plain(pixels).logits.float())


@torch.no_grad()
def test_pixels_are_those_of_the_video_processor(folder: Path):
    assert not (folder / "preprocessor_config.json").exists()
    processor = VJEPA2VideoProcessor.from_pretrained(folder)
    backbone = load_backbone(str(folder))
    assert (backbone.short_side, backbone.image_size) == (27, 24)
    # Theirs is resized to 27 first: compare what happens to a value, not to a place.
    flat = np.broadcast_to(np.arange(6, dtype=np.uint8)[:, None, None, None] * 50, (6, 24, 24, 3))
    theirs = processor([torch.from_numpy(flat.copy()).movedim(-1, 1)], return_tensors="pt")
    ours = backbone.pixel_values(flat[None])
    torch.testing.assert_close(ours, theirs["pixel_values_videos"], rtol=0, atol=1e-6)


@torch.no_grad()
def test_a_selector_is_told_the_places(backbone: Backbone):
    """By 5 sines and 5 cosines for each of time, height and width; 2 of 32 channels are spare."""
    tokens = backbone.embed(backbone.pixel_values(CLIPS))
    added = (backbone.selector_input(tokens) - tokens.values)[0]
    t, y, x = 2, 1, 2
    expected = []
    for axis in (t, y, x):
        angles = [axis / 10000 ** (i / 5) for i in range(5)]
        expected += [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
    token = (t * 3 + y) * 3 + x
    np.testing.assert_allclose(added[token], [*expected, 0, 0], rtol=0, atol=1e-6)
    # Else equal pixels in two places could not be told apart.
    assert len({tuple(row) for row in added.float().numpy().round(4).tolist()}) == 27


@torch.no_grad()
def test_model_and_method_show_a_selector_the_places(tmp_path: Path):
    """Tokens of equal pixels are alike but for their places."""
    folder = save_vjepa2(tmp_path, image_size=24, num_frames=6)
    model = make_model(folder)
    pixels = torch.zeros(1, 6, 3, 24, 24)
    tokens = model.backbone.embed(pixels)
    alone = model.selector(tokens.values)[0]
    assert alone.max() - alone.min() < 1e-5
    logits, _ = model.rank(tokens)
    assert len(set(logits[0].numpy().round(4).tolist())) == 27
    method = LiteMethod(model.selector)
    ranked = method.rank(ClipBatch.of_pixels(model.backbone, pixels, tokens))
    assert torch.equal(ranked.scores, logits)


def test_the_attentive_pooler_is_counted_on_what_is_left(folder: Path):
    """Two layers over all kept tokens and one query, with MLPs of 4 D whatever `mlp_ratio` is."""
    backbone = load_backbone(str(folder))
    twin, costs = without_data(backbone), CostModel(backbone)
    d, inner, wide, layers, classes = 32, 64, 128, 2, 5
    for k in (1, 5, 27):
        own = layers * (4 * k * d * d + 2 * k * k * d + 2 * k * d * wide)
        query = d * d + 2 * k * d * d + 2 * k * d + 2 * d * wide
        with FlopCounterMode(display=False) as counter:
            twin.head(grid_tokens(torch.empty(1, k, d, device="meta")))
        assert counter.get_total_flops() / 2 == own + query + d * classes
        blocks = 3 * (4 * k * d * d + 2 * k * k * d + 2 * k * d * inner)
        assert costs.blocks(k) * 1e9 == pytest.approx(blocks + own + query + d * classes)
