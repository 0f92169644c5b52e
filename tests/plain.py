"""A VideoMAE's forward pass written out, and class-activation maps in one call."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from pipeline.backbones.base import Backbone
from pipeline.backbones.tokens import Tokens
from pipeline.oracle.base import OracleMaps
from pipeline.oracle.names import make_oracle


def layers(backbone: Backbone) -> Any:
    """The Hugging Face modules of the blocks."""
    return backbone.model.videomae.encoder.layer


def plain_logits(backbone: Backbone, values: Tensor) -> Tensor:
    """Logits of some tokens (B, K, D), through Hugging Face's modules and none of ours."""
    for layer in layers(backbone):
        values = layer(values)
    return backbone.model.classifier(backbone.model.fc_norm(values.mean(1)))


def token_maps(
    backbone: Backbone,
    tokens: Tokens,
    labels: Tensor | None,
    layer: str = "blocks.-1.output",
    method: str = "gradcam",
) -> OracleMaps:
    return make_oracle(method, layer).values(backbone, tokens, labels)
