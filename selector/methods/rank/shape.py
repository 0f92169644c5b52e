"""The same ranking under a constraint: whole columns through time, or equally many of every frame.

Axes: B clips, T tubelets, P places of a tubelet, N = T P tokens.
"""

from __future__ import annotations

import torch

from pipeline.backbones.base import Backbone
from selector.methods.rank.base import ClipBatch, Ranking, RankingMethod
from selector.methods.spread import break_ties


class TubeMethod(RankingMethod):
    """Keeps the same places in all tubelets (as VideoMAE masks in pre-training).

    Where the budget does not divide by the number of tubelets, the last column is cut short: an
    even part of it stays.

    Args:
        ranking: whose mean over time ranks the columns.
        first: take the ranking of the first tubelet instead, for scores that have no mean.
    """

    ties = True

    def __init__(self, ranking: RankingMethod, *, first: bool = False) -> None:
        self._ranking, self._first = ranking, first
        self.gmacs, self.unseen = ranking.gmacs, ranking.unseen

    def __str__(self) -> str:
        return f"{self._ranking}-tube"

    def fits(self, backbone: Backbone) -> str | None:
        """As the ranking does."""
        return self._ranking.fits(backbone)

    def rank(self, batch: ClipBatch) -> Ranking:
        """One score per column."""
        found, grid = self._ranking.rank(batch), batch.backbone.grid
        maps = found.scores.unflatten(1, (grid.t, -1))
        columns = maps[:, 0] if self._first else maps.mean(dim=1)
        # Columns first, or two that score alike would both be cut.
        columns = break_ties(columns, grid._replace(t=1))
        return Ranking(columns[:, None].expand(maps.shape).flatten(1), found.reasons)


class GroupedMethod(RankingMethod):
    """Keeps equally many tokens in consecutive spans of time.

    Args:
        ranking: what ranks the tokens of a span.
        name: of the whole.
        num_spans: spans, None for one a tubelet; must divide the tubelets.
    """

    ties = True

    def __init__(self, ranking: RankingMethod, name: str, num_spans: int | None = None) -> None:
        self._ranking, self._name, self._num_spans = ranking, name, num_spans
        self.gmacs, self.unseen = ranking.gmacs, ranking.unseen

    def __str__(self) -> str:
        return self._name

    def fits(self, backbone: Backbone) -> str | None:
        """As the ranking does."""
        return self._ranking.fits(backbone)

    def rank(self, batch: ClipBatch) -> Ranking:
        """Minus the place that a token has within its span: best, second ..."""
        found = self._ranking.rank(batch)
        spans = break_ties(found.scores, batch.backbone.grid).unflatten(
            1, (self._num_spans or batch.backbone.grid.t, -1)
        )
        order = spans.sort(dim=2, descending=True, stable=True).indices
        place = torch.arange(spans.shape[2], device=order.device).expand_as(order)
        ranks = torch.empty_like(order).scatter(2, order, place)
        unknown = ~found.scores.isfinite().all(dim=1, keepdim=True)
        scores = (-ranks).flatten(1).double().masked_fill(unknown, torch.nan)
        return Ranking(scores, found.reasons)


def flux_spans(num_tubelets: int) -> int:
    """FluxViT's groups: four, or two where four do not divide the tubelets, or one."""
    return next(n for n in (4, 2, 1) if num_tubelets % n == 0 and (n < num_tubelets or n == 1))
