"""The oracle as a ranking: the map is computed on the fly, for any layer and method."""

from __future__ import annotations

import torch

from pipeline.backbones.base import Backbone
from pipeline.errors import ConfigError
from pipeline.oracle.maps import METHODS, token_maps
from selector.methods.rank.base import ClipBatch, Ranker


class OracleRanker(Ranker):
    """Ranks by the signed cam; the score would tie every negative token at 0.

    Args:
        backbone: whose layers are meant.
        layer: `embeddings` or `blocks.N.(mlp|output|norm1)`.
        method: one of `pipeline.oracle.maps.METHODS`.
        target: `label`, or `predicted` for the class that the full model predicts.

    Raises:
        ConfigError: no such layer or method.
    """

    gmacs = None

    def __init__(self, backbone: Backbone, layer: str, method: str, target: str = "label") -> None:
        backbone.resolve_layer(layer)
        if method not in METHODS:
            raise ConfigError(f"an oracle's method is one of {', '.join(METHODS)}, not {method!r}")
        self._layer, self._method, self._target = layer, method, target

    def scores(self, batch: ClipBatch) -> torch.Tensor:
        """The signed cam, (B, N) float32."""
        labels = batch.labels if self._target == "label" else None
        return token_maps(batch.backbone, batch.tokens, labels, self._layer, self._method).cam
