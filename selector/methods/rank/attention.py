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
    takes all, or the one that is asked for. It needs the full model on all tokens, so it shows what
    such a cue is worth and can save nothing: its cost is that of the blocks.

    Args:
        backbone: whose attention is looked at.
        block: the only one that counts, from the end where negative; None for all.
    """

    unseen = "the full model's attention"

    def __init__(self, backbone: Backbone, block: int | None = None) -> None:
        self.gmacs = CostModel(backbone).blocks(backbone.grid.num_tokens)
        self._block = block

    def __str__(self) -> str:
        return "attention" if self._block is None else f"attention[blocks.{self._block}]"

    def fits(self, backbone: Backbone) -> str | None:
        """It must have the block."""
        last = backbone.num_layers - 1
        if self._block is None or -last - 1 <= self._block <= last:
            return None
        return f"its blocks are blocks.0 to blocks.{last}, and blocks.{self._block} is none of them"

    def rank(self, batch: ClipBatch) -> Ranking:
        """Mean attention probability, (B, N) float32."""
        watcher = _Watcher()
        batch.backbone.run(batch.tokens, watcher)
        received = watcher.received if self._block is None else [watcher.received[self._block]]
        return Ranking(torch.stack(received).mean(dim=0)[:, batch.tokens.off_grid :])


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
