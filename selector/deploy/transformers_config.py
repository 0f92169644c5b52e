"""The `config.json` by which transformers knows the folder of a deployable model.

It only describes: the parts in the folder decide, and are loaded strictly (`selector.deploy.auto`).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import PretrainedConfig

if TYPE_CHECKING:
    from selector.deploy.model import LiteModel

MODEL_TYPE = "lite_video"
ARCHITECTURE = "LiteForVideoClassification"


class LiteVideoConfig(PretrainedConfig):
    """Sizes and class names of a model, as transformers' pipelines and trainers look for them."""

    model_type = MODEL_TYPE
    # What of the output a Trainer would else gather beside the logits.
    keys_to_ignore_at_inference = ["kept", "budget", "scores", "confidence", "group"]  # noqa: RUF012

    def __init__(
        self,
        num_frames: int = 16,
        image_size: int = 224,
        patch_size: int = 16,
        tubelet_size: int = 2,
        num_channels: int = 3,
        hidden_size: int = 768,
        num_hidden_layers: int = 12,
        backbone_type: str = "videomae",
        **others: Any,
    ) -> None:
        self.num_frames = num_frames
        self.image_size = image_size
        self.patch_size = patch_size
        self.tubelet_size = tubelet_size
        self.num_channels = num_channels
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.backbone_type = backbone_type
        super().__init__(**others)


def register() -> None:
    """Makes `AutoConfig` read our `config.json`."""
    from transformers import AutoConfig

    AutoConfig.register(MODEL_TYPE, LiteVideoConfig, exist_ok=True)


def is_model_config(path: Path) -> bool:
    """Whether a `config.json` is one of these."""
    try:
        return bool(json.loads(path.read_bytes())["model_type"] == MODEL_TYPE)
    except (ValueError, TypeError, KeyError):
        return False


def transformers_config(model: LiteModel) -> LiteVideoConfig:
    """The configuration that describes a model as it is in memory."""
    backbone = model.backbone
    theirs = backbone.model.config
    names = {int(number): name for number, name in theirs.id2label.items()}
    config = LiteVideoConfig(
        num_frames=backbone.num_frames,
        image_size=backbone.image_size,
        patch_size=backbone.patch_size,
        tubelet_size=backbone.tubelet_size,
        hidden_size=backbone.hidden_size,
        num_hidden_layers=backbone.num_layers,
        backbone_type=theirs.model_type,
        id2label=names,
        label2id={name: number for number, name in names.items()},
        problem_type=theirs.problem_type,
        architectures=[ARCHITECTURE],
    )
    config.dtype = str(model.dtype).removeprefix("torch.")
    return config
