"""Adapters over Hugging Face transformers: one interface for every video transformer."""

from __future__ import annotations

import torch

from pipeline.backbones.base import Backbone
from pipeline.backbones.checkpoint import checkpoint_digest, find_checkpoint, read_config
from pipeline.config import require_one_of
from pipeline.errors import BackboneError

__all__ = ["DTYPES", "Backbone", "backbone_digest", "load_backbone"]

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def load_backbone(
    name_or_path: str, revision: str | None = None, device: str = "cpu", precision: str = "fp32"
) -> Backbone:
    """Load a fine-tuned video transformer, frozen, in evaluation mode.

    Args:
        name_or_path: a folder that `save_pretrained` wrote, a hub id, or `synthetic`.
        revision: commit, tag or branch of a hub id.
        device: torch device of the weights.
        precision: `fp32`, `bf16` or `fp16`.

    Raises:
        ConfigError: no such precision.
        BackboneError: it is not found, of an unknown architecture, or does not load faithfully.
    """
    require_one_of("precision", precision, DTYPES)
    folder = find_checkpoint(name_or_path, revision)
    model_type = read_config(folder).get("model_type")
    if model_type != "videomae":
        raise BackboneError(
            f"{folder} is a {model_type!r} checkpoint; supported architectures: videomae"
        )
    from pipeline.backbones.videomae import VideoMAEBackbone

    return VideoMAEBackbone(folder, device, DTYPES[precision])


def backbone_digest(name_or_path: str, revision: str | None = None) -> str:
    """Identity of a checkpoint without loading it; see `Backbone.digest`."""
    return checkpoint_digest(find_checkpoint(name_or_path, revision))
