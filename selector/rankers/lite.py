"""The trained token selector as a ranking."""

from __future__ import annotations

import torch

from selector.model import TokenSelector
from selector.rankers.base import ClipBatch, Ranker


class LiteRanker(Ranker):
    """Ranks by the selector's logits, which are monotonic in its scores and do not saturate.

    Args:
        selector: in evaluation mode, on the backbone's device.
    """

    def __init__(self, selector: TokenSelector) -> None:
        self._selector = selector
        num_tokens = selector.config.grid.num_tokens
        self.gmacs = selector.macs_per_token() * num_tokens / 1e9

    def scores(self, batch: ClipBatch) -> torch.Tensor:
        """Logits, (B, N)."""
        scores: torch.Tensor = self._selector(batch.tokens)
        return scores

    def predicted(self, scores: torch.Tensor) -> torch.Tensor:
        """The selector's scores themselves, (B, N) in [0, 1]."""
        return scores.sigmoid()
