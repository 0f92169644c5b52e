"""VideoMAE checkpoints with random weights, saved as a user's fine-tuned ones are."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import (
    VideoMAEConfig,
    VideoMAEForVideoClassification,
    VideoMAEImageProcessor,
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
    """Write `config.json`, `model.safetensors` and `preprocessor_config.json`; return the folder.

    Biases and norms are drawn at random too: freshly initialised ones are all zeros and ones,
    which would hide a loader that drops them.
    """
    torch.manual_seed(seed)
    config = VideoMAEConfig(
        **{**TINY, **sizes},
        use_mean_pooling=use_mean_pooling,
        id2label={i: f"class {i}" for i in range(num_labels)},
        label2id={f"class {i}": i for i in range(num_labels)},
    )
    model = VideoMAEForVideoClassification(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    model.save_pretrained(folder)
    size = config.image_size
    VideoMAEImageProcessor(
        size={"shortest_edge": short_side or size}, crop_size={"height": size, "width": size}
    ).save_pretrained(folder)
    return folder
