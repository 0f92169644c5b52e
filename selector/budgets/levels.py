"""One selector's fixed budgets as rungs, from few tokens to all: what adaptive budgets mix.

Axes: V videos, L rungs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from selector.evaluation.config import FULL
from selector.evaluation.files import EvaluationInfo
from selector.evaluation.layout import TOP
from selector.evaluation.report.table import Entry
from selector.evaluation.results import VideoOutcomes

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Ladder:
    """What became of every video at every keep ratio; the last rung is the full model."""

    method: str
    """`lite` or `lite[NAME]`."""
    keep_ratios: tuple[float, ...]
    """(L,) ascending, ending in 1."""
    num_kept: Ints
    """(L,)"""
    gmacs: Floats
    """(L,) of one view with everything; the full model needs no selector."""
    gmacs_blocks: Floats
    """(L,) of one view, of its blocks and head alone."""
    gmacs_embed: float
    """Of one view."""
    label_rank: Ints
    """(V, L) place of the label among the classes, 0 = first."""
    confidence: Floats
    """(V, L) probability of the prediction."""
    mass: Floats
    """(V, L) share of the predicted scores that the kept tokens hold; NaN on the last rung."""

    @property
    def is_right(self) -> Bools:
        """Whether the prediction is right, (V, L)."""
        return self.label_rank == 0

    def of(self, videos: Bools) -> Ladder:
        """The same of some videos only, (V,)."""
        rows = {name: getattr(self, name)[videos] for name in ("label_rank", "confidence", "mass")}
        return replace(self, **rows)

    def mixed(self, name: str, keep_ratio: float, rungs: Ints, gmacs: Floats) -> Entry:
        """A line of the table in which every video stands on a rung of its own.

        Args:
            name: of the line.
            keep_ratio: the line's, that of its base.
            rungs: (V,)
            gmacs: (V,) of one view of each video.
        """
        rank = self.label_rank[np.arange(len(rungs)), rungs]
        return Entry(
            method=name,
            keep_ratio=keep_ratio,
            num_kept=float(self.num_kept[rungs].mean()),
            gmacs=float(gmacs.mean()),
            gmacs_backbone=self.gmacs_embed + float(self.gmacs_blocks[rungs].mean()),
            clips_per_s=None,
            top1=(rank == 0).astype(np.float64)[:, None],
            top5=(rank < TOP).astype(np.float64)[:, None],
        )

    def coin(self, keep_ratio: float, gmacs: Floats) -> Entry:
        """A fixed budget of the same mean cost: two neighbouring rungs, chosen by chance.

        What it gets right is an expectation over the coin, so that it has no noise of its own. Its
        cost follows an estimate, though: a video that costs more than the mean moves the whole
        line up a little, which a bootstrap over videos must see (the delta method's term). So one
        video's value may leave [0, 1]; the mean is the line's. Above the dearest rung it is that
        rung, below the cheapest the cheapest.

        Args:
            keep_ratio: the line's, that of what it is compared with.
            gmacs: (V,) of one view of each video, under what it is compared with.
        """
        order = np.argsort(self.gmacs)  # a dear selector can make 0.9 cost more than all tokens
        mean = float(gmacs.mean())
        above = int(np.clip(np.searchsorted(self.gmacs[order], mean), 1, len(order) - 1))
        low, high = order[above - 1], order[above]
        step = self.gmacs[high] - self.gmacs[low]
        weight = float(np.clip((mean - self.gmacs[low]) / step, 0, 1))
        moves = (gmacs - mean) / step if 0 < weight < 1 else np.zeros_like(gmacs)

        def between(values: npt.NDArray[Any]) -> Floats:
            """On the line between the two rungs, (L,) -> () or (V, L) -> (V,)."""
            line: Floats = (1 - weight) * values[..., low] + weight * values[..., high]
            return line

        def expected(right: Bools) -> Floats:
            """(V, L) -> (V, 1)."""
            gain = right[:, high].mean() - right[:, low].mean()
            return (between(right) + moves * gain)[:, None]

        return Entry(
            method=COIN,
            keep_ratio=keep_ratio,
            num_kept=float(between(self.num_kept)),
            gmacs=float(between(self.gmacs)),
            gmacs_backbone=self.gmacs_embed + float(between(self.gmacs_blocks)),
            clips_per_s=None,
            top1=expected(self.is_right),
            top5=expected(self.label_rank < TOP),
        )


COIN = "coin"
"""The method name of a `Ladder.coin`."""


def ladders(outcomes: VideoOutcomes, info: EvaluationInfo) -> list[Ladder]:
    """One per selector, in the configuration's order."""
    methods = [m for m in info.config.lite_methods if m not in outcomes.without]
    return [_ladder(outcomes, info, method) for method in methods]


def _ladder(outcomes: VideoOutcomes, info: EvaluationInfo, method: str) -> Ladder:
    at = {
        condition.keep_ratio: column
        for column, condition in enumerate(outcomes.conditions)
        if condition.method in (method, FULL)
    }
    ratios = tuple(sorted(at))
    columns = [at[ratio] for ratio in ratios]
    return Ladder(
        method=method,
        keep_ratios=ratios,
        num_kept=np.array(info.num_kept)[columns],
        gmacs=np.array(info.gmacs, np.float64)[columns],
        gmacs_blocks=np.array(info.gmacs_backbone)[columns] - info.gmacs_embed,
        gmacs_embed=info.gmacs_embed,
        label_rank=outcomes.label_rank[:, columns],
        confidence=outcomes.confidence[:, columns],
        mass=outcomes.mass[:, columns],
    )
