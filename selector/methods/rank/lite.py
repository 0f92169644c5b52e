"""The trained token selector as a ranking: the paper's LITE, and its scores spread out."""

from __future__ import annotations

import torch

from pipeline.backbones.base import Backbone
from pipeline.backbones.tokens import Tokens
from pipeline.errors import ConfigError
from selector.methods.rank.base import ClipBatch, Ranking, RankingMethod
from selector.methods.spread import spread_offsets
from selector.training.model import TokenSelector


def rank_by_selector(
    selector: TokenSelector, backbone: Backbone, tokens: Tokens, offsets: torch.Tensor
) -> Ranking:
    """Logits, moved by the offsets of the spread, (B, N); the selector's scores are the prediction.

    Args:
        selector: on the tokens' device.
        backbone: what it was trained for.
        tokens: all of the grid.
        offsets: (N,), see `selector.methods.spread.spread_offsets`.
    """
    logits = selector(backbone.selector_input(tokens))
    return Ranking(logits + offsets.to(logits.device), predicted=logits.sigmoid())


class LiteMethod(RankingMethod):
    """Ranks by the selector's logits, which are monotonic in its scores and do not saturate.

    Args:
        selector: in evaluation mode, on the backbone's device.
        spread: how evenly the kept tokens lie; see `selector.methods.spread`.
    """

    def __init__(self, selector: TokenSelector, spread: float = 0.0) -> None:
        self._selector = selector
        grid = selector.config.grid
        self._spread, self._offsets = spread, spread_offsets(grid, spread)
        self.gmacs = selector.macs_per_token() * grid.num_tokens / 1e9

    def __str__(self) -> str:
        return "lite-spread" if self._spread else "lite"

    def fits(self, backbone: Backbone) -> str | None:
        """A selector serves the checkpoint whose embeddings it learnt from, and no other."""
        try:
            self._selector.config.check_fits(backbone)
        except ConfigError as error:
            return str(error)
        return None

    def rank(self, batch: ClipBatch) -> Ranking:
        """See `rank_by_selector`."""
        return rank_by_selector(self._selector, batch.backbone, batch.tokens, self._offsets)
