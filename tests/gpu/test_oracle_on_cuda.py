"""On CUDA the backbone and the oracle give what they give on the CPU, at the cost promised."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.backbones import Backbone, load_backbone
from pipeline.oracle.cam import CAM_METHODS
from tests.checkpoints import BASE, save_videomae
from tests.plain import token_maps

VIDEOMAE_S = {
    "hidden_size": 384,
    "num_hidden_layers": 12,
    "num_attention_heads": 6,
    "intermediate_size": 1536,
    "patch_size": 16,
}


def make_clips(backbone: Backbone, batch: int) -> np.ndarray:
    side = backbone.image_size
    shape = (batch, backbone.num_frames, side, side, 3)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def maps_of(backbone: Backbone, clips: np.ndarray, layer: str, method: str = "gradcam"):
    with torch.no_grad():
        tokens = backbone.embed(backbone.pixel_values(clips))
    return token_maps(backbone, tokens, None, layer, method)


@pytest.mark.parametrize("layer", ["blocks.-1.mlp", "blocks.-1.output", "embeddings"])
def test_maps_equal_the_cpus(tiny_backbone: Path, layer: str):
    on_cpu = load_backbone(str(tiny_backbone))
    on_gpu = load_backbone(str(tiny_backbone), device="cuda")
    clips = make_clips(on_cpu, 4)
    expected, found = maps_of(on_cpu, clips, layer), maps_of(on_gpu, clips, layer)
    torch.testing.assert_close(found.logits.cpu(), expected.logits, rtol=1e-3, atol=1e-3)
    error = (found.cam.cpu() - expected.cam).norm() / expected.cam.norm()
    assert error < 1e-3


@pytest.mark.parametrize("method", CAM_METHODS)
def test_every_method_runs_and_stays_on_the_device(tiny_backbone: Path, method: str):
    backbone = load_backbone(str(tiny_backbone), device="cuda")
    maps = maps_of(backbone, make_clips(backbone, 2), "blocks.-1.output", method)
    assert maps.cam.device.type == "cuda"
    assert torch.isfinite(maps.cam).all()


def test_bf16_ranks_tokens_as_fp32_does(tmp_path: Path):
    folder = str(save_videomae(tmp_path, num_labels=174, **VIDEOMAE_S, **BASE))
    clips = make_clips(load_backbone(folder), 2)
    full = maps_of(load_backbone(folder, device="cuda"), clips, "blocks.-1.output").cam
    half = maps_of(
        load_backbone(folder, device="cuda", precision="bf16"), clips, "blocks.-1.output"
    ).cam
    for ours, theirs in zip(full, half, strict=True):
        correlation = torch.corrcoef(torch.stack([ours, theirs]))[0, 1]
        assert correlation > 0.95


def test_the_oracle_needs_hardly_more_memory_than_inference(tmp_path: Path):
    """Nothing is recorded before the last block, so only its tail is kept."""
    folder = str(save_videomae(tmp_path, num_labels=174, **VIDEOMAE_S, **BASE))
    backbone = load_backbone(folder, device="cuda")
    pixels = backbone.pixel_values(make_clips(backbone, 4))

    def peak(run) -> int:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before

    def forward() -> None:
        with torch.inference_mode():
            backbone(pixels)

    def oracle() -> None:
        with torch.no_grad():
            tokens = backbone.embed(pixels)
        token_maps(backbone, tokens, None, "blocks.-1.output")

    forward()
    oracle()  # both warmed up
    assert peak(oracle) < 1.5 * peak(forward)
