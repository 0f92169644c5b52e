"""The oracle as a ranking: the map is computed on the fly, for any layer, method and class.

A map of the true label shows the backbone what speaks for the label, so part of what an oracle
gains is steering: any class whose tokens are kept is predicted more often. `oracle-second` and
`oracle-wrong` keep the tokens of other classes, by the same method, and measure that part.
"""

from __future__ import annotations

import numpy as np
import torch

from pipeline.backbones.base import Backbone
from pipeline.errors import ConfigError
from pipeline.oracle.names import make_oracle, oracle_layer
from selector.methods.base import clip_entropy
from selector.methods.names import ORACLE_SECOND, ORACLE_WRONG
from selector.methods.rank.base import ClipBatch, Ranking, RankingMethod


class OracleMethod(RankingMethod):
    """Ranks by the signed map of a class; the score would tie every negative token at 0.

    Args:
        backbone: whose layers are meant.
        layer: `embeddings` or `blocks.N.(mlp|output|norm1)`.
        method: one of `pipeline.oracle.names.METHODS`.
        name: whose map. `oracle`: the label's; `oracle-predicted`: that of the class which the full
            model predicts; `oracle-second`: of the class that it finds second; `oracle-wrong`: of a
            random class that is neither the label nor predicted, the only one of the last three
            that reads the label, to avoid it.
        seed: of `oracle-wrong`.

    Raises:
        ConfigError: no such layer or method.
    """

    gmacs = None

    def __init__(
        self, backbone: Backbone, layer: str, method: str, name: str = "oracle", seed: int = 0
    ) -> None:
        self._asked = layer, method
        self._oracle = make_oracle(method, oracle_layer(backbone, method, layer))
        self._name, self._seed = name, seed
        self.unseen = "the full model's answer" if name == ORACLE_SECOND else "the answer"

    def __str__(self) -> str:
        return f"{self._name}[{','.join(self._asked)}]"

    def fits(self, backbone: Backbone) -> str | None:
        """A layer that this backbone lacks or that says nothing in it; too few classes."""
        layer, method = self._asked
        least = {ORACLE_SECOND: 2, ORACLE_WRONG: 3}.get(self._name, 1)
        if backbone.num_classes < least:
            return f"{self._name} needs {least} classes, and it has {backbone.num_classes}"
        try:
            oracle_layer(backbone, method, layer)
        except ConfigError as error:
            return str(error)
        return None

    def rank(self, batch: ClipBatch) -> Ranking:
        """The signed map, (B, N) float32."""
        classes = self._classes(batch)
        return Ranking(self._oracle.values(batch.backbone, batch.tokens, classes).cam)

    def _classes(self, batch: ClipBatch) -> torch.Tensor | None:
        """Whose maps, int64 (B,); None for those that the full model predicts."""
        if self._name == "oracle":
            return batch.labels
        if self._name not in (ORACLE_SECOND, ORACLE_WRONG):
            return None
        logits = batch.backbone.run(batch.tokens)
        first, second = logits.sort(dim=1, descending=True, stable=True).indices[:, :2].unbind(1)
        if self._name == ORACLE_SECOND:
            return second
        clips = zip(
            batch.video_ids, batch.views, batch.labels.tolist(), first.tolist(), strict=True
        )
        wrong = [
            wrong_class((self._seed, video, view.segment, view.crop), known, logits.shape[1])
            for video, view, *known in clips
        ]
        return torch.tensor(wrong, device=logits.device)


def wrong_class(seed: tuple[int, str, int, int], known: list[int], num_classes: int) -> int:
    """A class at random that is none of the `known`, which leave at least one.

    Args:
        seed: (seed, video id, segment, crop), what the draw depends on.
        known: the label and the predicted class.
        num_classes: of the backbone.
    """
    others = np.setdiff1d(np.arange(num_classes), known)
    return int(np.random.default_rng(clip_entropy(*seed)).choice(others))
