"""The small backbones: how they are made, started, and given some of their tokens."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.backbones.base import Preprocessing
from pipeline.backbones.huggingface import HuggingFaceBackbone
from pipeline.backbones.tokens import Tokens
from pipeline.standin.config import BackboneConfig
from pipeline.standin.families import FAMILIES

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Per channel, on the 0..1 scale; written into the checkpoint's processor."""


def build_model(config: BackboneConfig, label_names: list[str]) -> Any:
    """A fresh video classifier of transformers that names its classes."""
    classes = {
        "id2label": dict(enumerate(label_names)),
        "label2id": {name: i for i, name in enumerate(label_names)},
    }
    return FAMILIES[config.family].build(config, classes)


def to_patches(frames: Tensor, config: BackboneConfig) -> Tensor:
    """Cuts clips into tubelets, ordered as the patch embedding's convolution reads them.

    Args:
        frames: uint8 (B, T, H, W, 3).
        config: the shape of the model.

    Returns:
        uint8 (B, N, 3 * tubelet * patch * patch).
    """
    grid, tubelet, patch = config.grid, config.tubelet_size, config.patch_size
    cut = frames.reshape(-1, grid.t, tubelet, grid.h, patch, grid.w, patch, 3)
    return cut.permute(0, 1, 3, 5, 7, 2, 4, 6).reshape(len(frames), grid.num_tokens, -1)


def pick(values: Tensor, index: Tensor) -> Tensor:
    """The rows `index` (B, K) of `values` (B, N, ...)."""
    return values[torch.arange(len(values), device=values.device)[:, None], index]


def normalise(patches: Tensor) -> Tensor:
    """uint8 patches (B, K, P) to the model's input, float32."""
    per_channel = patches.shape[-1] // 3
    mean, std = (
        torch.tensor(v, device=patches.device).repeat_interleave(per_channel) for v in (MEAN, STD)
    )
    return (patches.float() / 255.0 - mean) / std


def as_backbone(model: Any, config: BackboneConfig) -> HuggingFaceBackbone:
    """The model as everything else here runs it; the weights are the same, not a copy."""
    side = config.image_size
    preprocessing = Preprocessing(
        short_side=side,
        crop_size=side,
        mean=(255 * MEAN[0], 255 * MEAN[1], 255 * MEAN[2]),
        std=(255 * STD[0], 255 * STD[1], 255 * STD[2]),
    )
    return FAMILIES[config.family].backbone(model, preprocessing)


def embed_kept(backbone: HuggingFaceBackbone, patches: Tensor, index: Tensor) -> Tokens:
    """Some tokens as they enter the first block; the others are never computed.

    Args:
        backbone: of `as_backbone`.
        patches: normalised (B, K, P), the kept tubelets.
        index: int64 (B, K), their places on the token grid.

    Returns:
        (B, off_grid + K, D), what lies on no grid first.
    """
    family = FAMILIES[backbone.model_type]
    projection = family.projection(backbone.model)
    values = F.linear(patches, projection.weight.flatten(1), projection.bias)
    off_grid, on_grid = family.positions(backbone.model)
    values = values + on_grid.to(patches.device)[index]
    return Tokens(
        torch.cat([off_grid.to(values.dtype).expand(len(values), -1, -1), values], dim=1),
        F.pad(index, (len(off_grid), 0), value=-1),
        prefix=backbone.prefix,
        off_grid=backbone.off_grid,
    )


@torch.no_grad()
def start_from_principal_components(model: Any, patches: Tensor) -> None:
    """Sets the patch embedding to the whitened principal components of tubelets.

    From random filters nothing was learnt in thousands of steps: most of a tubelet's variance is
    its mean colour, and motion is in directions of a hundredth of that variance.

    Args:
        model: changed in place.
        patches: normalised (n, P), a sample; n well above P.
    """
    projection = FAMILIES[model.config.model_type].projection(model)
    mean = patches.mean(0)
    centred = patches - mean
    variance, directions = torch.linalg.eigh(centred.T @ centred / len(patches))
    largest = torch.arange(len(variance) - 1, len(variance) - 1 - len(projection.weight), -1)
    scale = variance[largest].clamp(min=1e-4).rsqrt() * 0.5
    # The sign of an eigenvector is the solver's choice; fix it, so that equal seeds stay equal.
    rows = directions[:, largest].T
    rows = rows * rows.gather(1, rows.abs().argmax(1, keepdim=True)).sign()
    filters = rows * scale[:, None]
    projection.weight.copy_(filters.view_as(projection.weight))
    projection.bias.copy_(-filters @ mean)
