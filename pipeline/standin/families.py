"""The families whose small models can be trained here, and what differs between them.

Axes: N tokens of the grid, D channels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pipeline.backbones.huggingface import HuggingFaceBackbone
from pipeline.backbones.timesformer import JOINT, TimesformerBackbone
from pipeline.backbones.videomae import VideoMAEBackbone
from pipeline.backbones.vjepa2 import sinusoids
from pipeline.standin.config import BackboneConfig


@dataclass(frozen=True)
class Family:
    """What is a family's own.

    Attributes:
        backbone: its adapter.
        build: makes a fresh model, given the names of its classes as transformers takes them.
        projection: the convolution that makes tokens of patches.
        positions: what stands in front of the grid's tokens (off_grid, D), and what is added to
            each of those (N, D), in row-major order.
    """

    backbone: type[HuggingFaceBackbone]
    build: Callable[[BackboneConfig, dict[str, Any]], Any]
    projection: Callable[[Any], Any]
    positions: Callable[[Any], tuple[Tensor, Tensor]]


def _sizes(config: BackboneConfig) -> dict[str, Any]:
    return {
        "image_size": config.image_size,
        "patch_size": config.patch_size,
        "num_frames": config.num_frames,
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "intermediate_size": 4 * config.hidden_size,
    }


def _build_videomae(config: BackboneConfig, classes: dict[str, Any]) -> Any:
    from transformers import VideoMAEConfig, VideoMAEForVideoClassification

    model: Any = VideoMAEForVideoClassification(
        VideoMAEConfig(
            **_sizes(config), tubelet_size=config.tubelet_size, use_mean_pooling=True, **classes
        )
    )
    model.set_attn_implementation(attention_for(config.precision))
    return model


def attention_for(precision: str) -> str:
    """The attention of a VideoMAE's training, as transformers calls it.

    In bfloat16 on CPUs the plain one is five times faster than the fused one.
    """
    return "eager" if precision == "bf16" else "sdpa"


def _videomae_positions(model: Any) -> tuple[Tensor, Tensor]:
    table: Tensor = model.videomae.embeddings.position_embeddings[0]
    return table[:0], table


def _build_timesformer(config: BackboneConfig, classes: dict[str, Any]) -> Any:
    """Positions start as sinusoids of the place: learnt ones of almost zero come to it late."""
    from transformers import TimesformerConfig, TimesformerForVideoClassification

    model: Any = TimesformerForVideoClassification(
        TimesformerConfig(**_sizes(config), attention_type=JOINT, **classes)
    )
    grid, embeddings = config.grid, model.timesformer.embeddings
    table = sinusoids(torch.arange(grid.num_tokens), grid, config.hidden_size)
    table = table.unflatten(0, (grid.t, grid.h * grid.w))
    of_time = 2 * (config.hidden_size // 6)  # channels; the others are of height and width
    with torch.no_grad():
        embeddings.time_embeddings[0, :, :of_time] = table[:, 0, :of_time]
        embeddings.position_embeddings[0, 1:] = 0.0
        embeddings.position_embeddings[0, 1:, of_time:] = table[0, :, of_time:]
    return model


def _timesformer_positions(model: Any) -> tuple[Tensor, Tensor]:
    embeddings = model.timesformer.embeddings
    in_space = embeddings.position_embeddings[0]
    on_grid = embeddings.time_embeddings[0][:, None] + in_space[1:]
    return embeddings.cls_token[0] + in_space[:1], on_grid.flatten(0, 1)


FAMILIES = {
    "videomae": Family(
        VideoMAEBackbone,
        _build_videomae,
        lambda model: model.videomae.embeddings.patch_embeddings.projection,
        _videomae_positions,
    ),
    "timesformer": Family(
        TimesformerBackbone,
        _build_timesformer,
        lambda model: model.timesformer.embeddings.patch_embeddings.projection,
        _timesformer_positions,
    ),
}
"""By `model_type` of the checkpoint."""
