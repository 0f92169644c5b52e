"""A checkpoint pre-trained without labels, as a classifier with a head yet to be learnt."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from pipeline.backbones.checkpoint import checkpoint_digest, read_config
from pipeline.backbones.preprocessing import read_preprocessing
from pipeline.backbones.strict import load_strictly
from pipeline.backbones.videomae import VideoMAEBackbone

ARCHITECTURE = "VideoMAEForPreTraining"
NO_CLASS = "none: pre-trained without labels"
"""The one class of such a classifier, whose head has learnt nothing."""


def is_pretrained(folder: Path) -> bool:
    """Whether a checkpoint holds VideoMAE's encoder and decoder, and no head."""
    return read_config(folder).get("architectures") == [ARCHITECTURE]


def load_pretrained(folder: Path) -> VideoMAEBackbone:
    """The encoder of a published pre-training (`MCG-NJU/videomae-base`), float32, frozen.

    As transformers' `VideoMAEForVideoClassification.from_pretrained` takes it: the decoder is left
    out, and where the configuration asks for mean pooling its norm is new. Unlike there, what is
    in the encoder must be in the file, bit for bit.

    Raises:
        BackboneError: a key is missing, unexpected or of another shape; or a processor or sizes
            that cannot be used here.
    """
    from transformers import VideoMAEForVideoClassification

    found: Any = load_strictly(folder, ARCHITECTURE, VideoMAEBackbone.renamed)
    settings = copy.deepcopy(found.config)
    settings.architectures = None
    settings.id2label, settings.label2id = {0: NO_CLASS}, {NO_CLASS: 0}
    model = VideoMAEForVideoClassification._from_config(settings, attn_implementation="sdpa")
    model.videomae.load_state_dict(found.videomae.state_dict())
    preprocessing = read_preprocessing(folder, model.config.image_size)
    model.eval().requires_grad_(False)
    return VideoMAEBackbone(model, preprocessing, checkpoint_digest(folder))
