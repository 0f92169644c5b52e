"""Ranking by the attention that tokens receive: what the backbone itself looks at."""

from __future__ import annotations

import torch

from pipeline.backbones.base import Backbone
from pipeline.backbones.tokens import RECEIVED, Evidence, Reducer, Tokens, Wanted
from selector.methods.cost import CostModel
from selector.methods.rank.base import ClipBatch, Ranking, RankingMethod


class AttentionMethod(RankingMethod):
    """Attention received, averaged over queries, heads and blocks.

    The paper's baseline, "the magnitude of the attention of each token", names no block; ours
    takes all. It needs the full model on all tokens, so it shows what such a cue is worth and can
    save nothing: its cost is that of the blocks.

    Args:
        backbone: whose attention is looked at.
    """

    unseen = "the full model's attention"

    def __init__(self, backbone: Backbone) -> None:
        self.gmacs = CostModel(backbone).blocks(backbone.grid.num_tokens)

    def __str__(self) -> str:
        return "attention"

    def rank(self, batch: ClipBatch) -> Ranking:
        """Mean attention probability, (B, N) float32."""
        watcher = _Watcher()
        batch.backbone.run(batch.tokens, watcher)
        return Ranking(torch.stack(watcher.received).mean(dim=0)[:, batch.tokens.off_grid :])


class _Watcher(Reducer):
    """Reduces nothing, and notes the attention received in every block, (B, K) each."""

    def __init__(self) -> None:
        self.received: list[torch.Tensor] = []

    def wants(self, layer: int) -> Wanted:
        return frozenset({RECEIVED})

    def between(self, layer: int, x: Tokens, seen: Evidence) -> Tokens:
        assert seen.received is not None
        self.received.append(seen.received)
        return x
