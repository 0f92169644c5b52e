"""The oracle as a ranking: the map is computed on the fly, for any layer and method."""

from __future__ import annotations

import torch

from pipeline.backbones.base import Backbone
from pipeline.oracle.names import make_oracle, oracle_layer
from selector.methods.rank.base import ClipBatch, Ranker


class OracleRanker(Ranker):
    """Ranks by the signed cam; the score would tie every negative token at 0.

    Args:
        backbone: whose layers are meant.
        layer: `embeddings` or `blocks.N.(mlp|output|norm1)`.
        method: one of `pipeline.oracle.names.METHODS`.
        target: `label`, or `predicted` for the class that the full model predicts.

    Raises:
        ConfigError: no such layer or method.
    """

    gmacs = None

    def __init__(self, backbone: Backbone, layer: str, method: str, target: str = "label") -> None:
        self._oracle = make_oracle(method, oracle_layer(backbone, method, layer))
        self._target = target

    def scores(self, batch: ClipBatch) -> torch.Tensor:
        """The signed cam, (B, N) float32."""
        labels = batch.labels if self._target == "label" else None
        return self._oracle.values(batch.backbone, batch.tokens, labels).cam
