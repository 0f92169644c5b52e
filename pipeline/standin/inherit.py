"""Starts a TimeSformer from a trained VideoMAE, as the published ones start from an image model.

Both have the same blocks, so that their weights are taken as they are; from scratch the small
TimeSformer had learnt next to nothing when VideoMAE had learnt the task.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pipeline.backbones.videomae import VideoMAEBackbone
from pipeline.errors import BackboneError
from pipeline.standin.families import FAMILIES

SAME = ("image_size", "patch_size", "hidden_size", "num_hidden_layers", "num_attention_heads")


@torch.no_grad()
def start_from_videomae(model: Any, start: VideoMAEBackbone) -> None:
    """Gives a TimeSformer with joint attention a VideoMAE's weights, as far as it has them.

    A frame's patch is embedded as a tubelet that shows it twice: the tubelet's filters are summed
    over its frames. Positions, which VideoMAE adds per token, become a sum of one for the place in
    the frame and one for the time, the closest that there is (the means over the other axis). The
    CLS token, which VideoMAE has not, stays fresh, and so does the head where the classes differ.

    Args:
        model: changed in place.
        start: read only.

    Raises:
        BackboneError: another shape, or a head that reads one token.
    """
    ours, theirs = model.config, start.model.config
    differ = [name for name in SAME if getattr(ours, name) != getattr(theirs, name)]
    if differ:
        raise BackboneError(
            "a TimeSformer takes a VideoMAE's weights at the same shape only; here differ "
            + ", ".join(f"{n} ({getattr(theirs, n)} -> {getattr(ours, n)})" for n in differ)
        )
    if start.model.fc_norm is None:
        raise BackboneError("its head reads its first token, and a TimeSformer's head reads CLS")
    grid = start.grid
    if grid.t != ours.num_frames:
        raise BackboneError(f"{grid.t} tubelets are no {ours.num_frames} frames")
    videomae, timesformer = FAMILIES["videomae"], FAMILIES["timesformer"]
    tubelets, patches = videomae.projection(start.model), timesformer.projection(model)
    patches.weight.copy_(tubelets.weight.sum(2))
    patches.bias.copy_(tubelets.bias)
    _, table = videomae.positions(start.model)
    places = table.unflatten(0, (grid.t, grid.h * grid.w))
    embeddings = model.timesformer.embeddings
    embeddings.position_embeddings[0, 1:] = places.mean(0)
    embeddings.time_embeddings[0] = places.mean(1) - places.mean((0, 1))
    layers = zip(model.timesformer.encoder.layer, start.model.videomae.encoder.layer, strict=True)
    for to, layer in layers:
        to.load_state_dict(_joined(layer.state_dict()))
    model.timesformer.layernorm.load_state_dict(start.model.fc_norm.state_dict())
    if ours.id2label == theirs.id2label:
        model.classifier.load_state_dict(start.model.classifier.state_dict())


def _joined(block: dict[str, Tensor]) -> dict[str, Tensor]:
    """A block's state with queries, keys and values in one matrix, and zeros for a missing bias."""
    inner = "attention.attention."
    found = {name: value for name, value in block.items() if not name.startswith(inner)}
    weights = [block[f"{inner}{part}.weight"] for part in ("query", "key", "value")]
    biases = [
        block.get(f"{inner}{part}.bias", torch.zeros_like(weights[0][:, 0]))
        for part in ("query", "key", "value")
    ]
    return found | {f"{inner}qkv.weight": torch.cat(weights), f"{inner}qkv.bias": torch.cat(biases)}
