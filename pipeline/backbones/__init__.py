"""Adapters over Hugging Face transformers: one interface for every video transformer."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch

from pipeline.backbones.base import Backbone
from pipeline.backbones.checkpoint import checkpoint_digest, find_checkpoint, read_config
from pipeline.config import require_one_of
from pipeline.errors import BackboneError

__all__ = ["DTYPES", "Backbone", "adapt", "backbone_digest", "load_backbone"]

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
FAMILIES = {
    "videomae": ("videomae", "VideoMAEBackbone"),
    "timesformer": ("timesformer", "TimesformerBackbone"),
    "vivit": ("vivit", "VivitBackbone"),
    "vjepa2": ("vjepa2", "VJEPA2Backbone"),
}
"""`model_type` of a checkpoint -> module and class of its adapter."""


def load_backbone(
    name_or_path: str, revision: str | None = None, device: str = "cpu", precision: str = "fp32"
) -> Backbone:
    """Load a fine-tuned video transformer, frozen, in evaluation mode.

    Args:
        name_or_path: a folder that `save_pretrained` wrote, a hub id, or `synthetic`.
        revision: commit, tag or branch of a hub id.
        device: torch device of the weights. On `meta` they have no values and take no memory:
            enough for sizes, names, layers, costs and the digest.
        precision: `fp32`, `bf16` or `fp16`.

    Raises:
        ConfigError: no such precision.
        BackboneError: it is not found, of an unknown architecture, or does not load faithfully.
    """
    require_one_of("precision", precision, DTYPES)
    folder = find_checkpoint(name_or_path, revision)
    model_type = read_config(folder).get("model_type")
    if model_type not in FAMILIES:
        raise BackboneError(
            f"{folder} is a {model_type!r} checkpoint; supported architectures: "
            f"{', '.join(FAMILIES)}"
        )
    backbone: Backbone = _family(model_type).from_folder(folder, device, DTYPES[precision])
    return backbone


def adapt(model: Any) -> Backbone:
    """A backbone over a model of transformers that is in memory, whose weights are not touched.

    It has no identity and does not know how frames are normalised: it takes normalised ones.

    Raises:
        BackboneError: the model is no video classifier of a known architecture.
    """
    model_type = getattr(getattr(model, "config", None), "model_type", None)
    family = _family(model_type) if model_type in FAMILIES else None
    if family is None or type(model).__name__ != family.architecture:
        known = ", ".join(_family(name).architecture for name in FAMILIES)
        raise BackboneError(f"{type(model).__name__} is none of the models known here: {known}")
    backbone: Backbone = family.from_model(model)
    return backbone


def _family(model_type: str) -> Any:
    module, name = FAMILIES[model_type]
    return getattr(import_module(f"pipeline.backbones.{module}"), name)


def backbone_digest(name_or_path: str, revision: str | None = None) -> str:
    """Identity of a checkpoint without loading it; see `Backbone.digest`."""
    return checkpoint_digest(find_checkpoint(name_or_path, revision))
