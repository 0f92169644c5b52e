"""The oracle as a ranking: the map is computed on the fly, for any layer and method."""

from __future__ import annotations

from pipeline.backbones.base import Backbone
from pipeline.errors import ConfigError
from pipeline.oracle.names import make_oracle, oracle_layer
from selector.methods.rank.base import ClipBatch, Ranking, RankingMethod


class OracleMethod(RankingMethod):
    """Ranks by the signed map; the score would tie every negative token at 0.

    Args:
        backbone: whose layers are meant.
        layer: `embeddings` or `blocks.N.(mlp|output|norm1)`.
        method: one of `pipeline.oracle.names.METHODS`.
        target: `label`, or `predicted` for the class that the full model predicts.

    Raises:
        ConfigError: no such layer or method.
    """

    gmacs = None
    unseen = "the answer"

    def __init__(self, backbone: Backbone, layer: str, method: str, target: str = "label") -> None:
        self._asked = layer, method
        self._oracle = make_oracle(method, oracle_layer(backbone, method, layer))
        self._target = target

    def __str__(self) -> str:
        name = "oracle" if self._target == "label" else "oracle-predicted"
        return f"{name}[{','.join(self._asked)}]"

    def fits(self, backbone: Backbone) -> str | None:
        """A layer that this backbone lacks, or that says nothing in it."""
        layer, method = self._asked
        try:
            oracle_layer(backbone, method, layer)
        except ConfigError as error:
            return str(error)
        return None

    def rank(self, batch: ClipBatch) -> Ranking:
        """The signed map, (B, N) float32."""
        labels = batch.labels if self._target == "label" else None
        return Ranking(self._oracle.values(batch.backbone, batch.tokens, labels).cam)
