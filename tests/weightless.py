"""Backbones of published sizes on the meta device: shapes without gigabytes of weights."""

from __future__ import annotations

from typing import Any
from unittest import mock

import torch
import transformers

from pipeline.backbones.base import Backbone, Preprocessing
from pipeline.backbones.huggingface import HuggingFaceBackbone
from pipeline.backbones.videomae import VideoMAEBackbone


def weightless(family: type[HuggingFaceBackbone], **fields: Any) -> Backbone:
    """A model of this family; what its configuration does not name is as transformers has it."""
    name = family.architecture.removesuffix("ForVideoClassification")
    config = getattr(transformers, f"{name}Config")(**fields)
    side = family.sizes(config).image_size
    table = "transformers.models.videomae.modeling_videomae.get_sinusoid_encoding_table"
    # Hugging Face fills it in Python, number by number.
    with torch.device("meta"), mock.patch(table, lambda n, d: torch.empty(1, n, d)):
        model = getattr(transformers, family.architecture)(config).eval()
    zero, one = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    return family(model, Preprocessing(short_side=side, crop_size=side, mean=zero, std=one))


def weightless_videomae_b() -> Backbone:
    """VideoMAE-B as published for Something-Something V2."""
    return weightless(VideoMAEBackbone, num_labels=174)
