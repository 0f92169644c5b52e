"""Checkpoints with random weights, saved as a user's fine-tuned ones are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import (
    TimesformerConfig,
    TimesformerForVideoClassification,
    VideoMAEConfig,
    VideoMAEForVideoClassification,
    VideoMAEImageProcessor,
    VivitConfig,
    VivitForVideoClassification,
    VivitImageProcessor,
    VJEPA2Config,
    VJEPA2ForVideoClassification,
    VJEPA2VideoProcessor,
)

TINY = {
    "image_size": 16,
    "patch_size": 8,
    "num_frames": 4,
    "tubelet_size": 2,
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 48,
}
# VideoMAE-B as published; the defaults of the configuration class are its sizes.
BASE = {"image_size": 224, "num_frames": 16}


def save_videomae(
    folder: Path,
    *,
    num_labels: int = 5,
    seed: int = 0,
    short_side: int | None = None,
    use_mean_pooling: bool = True,
    **sizes: int,
) -> Path:
    """Write configuration, weights and `preprocessor_config.json`; return the folder."""
    config = VideoMAEConfig(
        **{**TINY, **sizes}, use_mean_pooling=use_mean_pooling, **_classes(num_labels)
    )
    _save(VideoMAEForVideoClassification, config, folder, seed)
    _save_processor(folder, config.image_size, short_side)
    return folder


def save_timesformer(
    folder: Path,
    *,
    num_labels: int = 5,
    seed: int = 0,
    attention_type: str = "joint_space_time",
    **sizes: Any,
) -> Path:
    """Like `save_videomae`; frames are tokens one by one."""
    own = {**TINY, **sizes}
    del own["tubelet_size"]
    config = TimesformerConfig(**own, attention_type=attention_type, **_classes(num_labels))
    _save(TimesformerForVideoClassification, config, folder, seed)
    size = config.image_size if isinstance(config.image_size, int) else min(config.image_size)
    _save_processor(folder, size, image_mean=[0.45] * 3, image_std=[0.225] * 3)
    return folder


def save_vivit(folder: Path, *, num_labels: int = 5, seed: int = 0, **sizes: int) -> Path:
    """Like `save_videomae`, with the processor that ViViT's checkpoints come with."""
    own = {**TINY, **sizes}
    patch = own.pop("patch_size")
    own["tubelet_size"] = [own["tubelet_size"], patch, patch]
    config = VivitConfig(**own, **_classes(num_labels))
    _save(VivitForVideoClassification, config, folder, seed)
    size = config.image_size
    VivitImageProcessor(
        size={"shortest_edge": size}, crop_size={"height": size, "width": size}
    ).save_pretrained(folder)
    return folder


def save_vjepa2(folder: Path, *, num_labels: int = 5, seed: int = 0, **sizes: int) -> Path:
    """Like `save_videomae`; its processor is a `video_preprocessor_config.json`."""
    own = {**TINY, **sizes}
    size, frames, _ = (own.pop(k) for k in ("image_size", "num_frames", "intermediate_size"))
    config = VJEPA2Config(
        **own,
        crop_size=size,
        frames_per_clip=frames,
        mlp_ratio=2.0,
        num_pooler_layers=2,
        pred_hidden_size=12,
        pred_num_attention_heads=2,
        pred_num_hidden_layers=1,
        **_classes(num_labels),
    )
    _save(VJEPA2ForVideoClassification, config, folder, seed)
    VJEPA2VideoProcessor(crop_size=size).save_pretrained(folder)
    return folder


def _classes(num_labels: int) -> dict[str, Any]:
    return {
        "id2label": {i: f"class {i}" for i in range(num_labels)},
        "label2id": {f"class {i}": i for i in range(num_labels)},
    }


def _save(architecture: Any, config: Any, folder: Path, seed: int) -> None:
    """Biases and norms are drawn at random too.

    Freshly initialised ones are all zeros and ones, which would hide a loader that drops them.
    """
    torch.manual_seed(seed)
    model = architecture(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    model.save_pretrained(folder)


def _save_processor(folder: Path, size: int, short_side: int | None = None, **fields: Any) -> None:
    VideoMAEImageProcessor(
        size={"shortest_edge": short_side or size},
        crop_size={"height": size, "width": size},
        **fields,
    ).save_pretrained(folder)


KIND_SIZES = {"image_size": 32, "num_frames": 16, "num_hidden_layers": 5}
"""Eight tubelets, and as many blocks as the methods ask for."""
KINDS: dict[str, Callable[[Path], Path]] = {
    "VideoMAE": lambda folder: save_videomae(folder, **KIND_SIZES),
    "VideoMAE, first token": lambda folder: save_videomae(
        folder, **KIND_SIZES, use_mean_pooling=False
    ),
    "TimeSformer, joint": lambda folder: save_timesformer(
        folder, **(KIND_SIZES | {"num_frames": 8})
    ),
    "TimeSformer, divided": lambda folder: save_timesformer(
        folder, **(KIND_SIZES | {"num_frames": 8}), attention_type="divided_space_time"
    ),
    "ViViT": lambda folder: save_vivit(folder, **KIND_SIZES),
    "V-JEPA 2": lambda folder: save_vjepa2(folder, **KIND_SIZES),
}
"""A checkpoint of every kind that a method may meet, by its name in docs/methods.md."""
