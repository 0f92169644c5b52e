"""The trained token selector as a ranking."""

from __future__ import annotations

import torch

from selector.methods.rank.base import ClipBatch, Ranker
from selector.methods.spread import spread_offsets
from selector.training.model import TokenSelector


class LiteRanker(Ranker):
    """Ranks by the selector's logits, which are monotonic in its scores and do not saturate.

    Args:
        selector: in evaluation mode, on the backbone's device.
        spread: how evenly the kept tokens lie; see `selector.methods.spread`.
    """

    def __init__(self, selector: TokenSelector, spread: float = 0.0) -> None:
        self._selector = selector
        grid = selector.config.grid
        self._offsets = spread_offsets(grid, spread)
        self.gmacs = selector.macs_per_token() * grid.num_tokens / 1e9

    def scores(self, batch: ClipBatch) -> torch.Tensor:
        """Logits, moved by the offsets of the spread, (B, N)."""
        logits: torch.Tensor = self._selector(batch.tokens.on_grid)
        return logits + self._offsets.to(logits.device)

    def predicted(self, scores: torch.Tensor) -> torch.Tensor:
        """The selector's scores themselves, (B, N) in [0, 1]."""
        return (scores - self._offsets.to(scores.device)).sigmoid()
