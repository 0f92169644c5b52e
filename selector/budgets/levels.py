"""One selector's fixed budgets, from few tokens to all: the levels that adaptive budgets mix.

Axes: V rows, a video or a clip each; L levels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from selector.evaluation.config import FULL
from selector.evaluation.files import EvaluationInfo
from selector.evaluation.layout import TOP
from selector.evaluation.report.table import Entry
from selector.evaluation.results import Outcomes

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

MIXTURE = "random mixture"
"""The method name of a `Levels.random_mixture`."""


class SecondOpinion(NamedTuple):
    """The confidence of a model other than the backbone."""

    confidence: Floats
    """(V,)"""
    gmacs: float
    """Of one view."""


@dataclass(frozen=True, kw_only=True)
class Levels:
    """What became of every row at every keep ratio; the last level is the full model."""

    method: str
    """`lite`, `lite-spread` or one of them with the selector's [NAME]."""
    keep_ratios: tuple[float, ...]
    """(L,) ascending, ending in 1."""
    num_kept: Ints
    """(L,)"""
    gmacs: Floats
    """(L,) of one view under a fixed budget, with everything; the full model needs no selector."""
    gmacs_blocks: Floats
    """(L,) of one view, of its blocks and head alone."""
    gmacs_embed: float
    """Of one view."""
    label_rank: Ints
    """(V, L) place of the label among the classes, 0 = first."""
    confidence: Floats
    """(V, L) probability of the prediction."""
    mass: Floats
    """(V, L) share of the predicted scores that the kept tokens hold; NaN on the last level."""
    opinions: Mapping[str, SecondOpinion] = field(default_factory=dict)
    """Confidences that are not the backbone's own, by name."""
    views: int = 1
    """Rows of one video."""

    @property
    def is_right(self) -> Bools:
        """Whether the prediction is right, (V, L)."""
        return self.label_rank == 0

    @property
    def gmacs_ranked(self) -> Floats:
        """(L,) of one view where the selector ran, as it does under every adaptive budget."""
        selector = self.gmacs[0] - self.gmacs_embed - self.gmacs_blocks[0]
        return np.r_[self.gmacs[:-1], self.gmacs[-1] + selector]

    def of(self, rows: Bools) -> Levels:
        """The same of some rows only, (V,)."""
        arrays = {n: getattr(self, n)[rows] for n in ("label_rank", "confidence", "mass")}
        opinions = {
            name: SecondOpinion(found.confidence[rows], found.gmacs)
            for name, found in self.opinions.items()
        }
        return replace(self, **arrays, opinions=opinions)

    def mixed(self, name: str, keep_ratio: float, given: Ints, gmacs: Floats) -> Entry:
        """A line of the table in which every row has a level of its own.

        Args:
            name: of the line.
            keep_ratio: the line's, that of its base.
            given: (V,) levels.
            gmacs: (V,) of one view of each row.
        """
        rank = self.label_rank[np.arange(len(given)), given]
        return Entry(
            method=name,
            keep_ratio=keep_ratio,
            num_kept=float(self.num_kept[given].mean()),
            gmacs=float(gmacs.mean()),
            gmacs_backbone=self.gmacs_embed + float(self.gmacs_blocks[given].mean()),
            clips_per_s=None,
            top1=(rank == 0).astype(np.float64)[:, None],
            top5=(rank < TOP).astype(np.float64)[:, None],
        )

    def random_mixture(self, keep_ratio: float, gmacs: Floats) -> Entry:
        """A fixed budget of the same mean cost: two neighbouring levels, chosen by chance.

        What it gets right is an expectation over the choice, so that it has no noise of its own.
        Its cost follows an estimate, though: a row that costs more than the mean moves the whole
        line up a little, which a bootstrap over rows must see (the delta method's term). So one
        row's value may leave [0, 1]; the mean is the line's. Above the dearest level it is that
        level, below the cheapest the cheapest.

        Args:
            keep_ratio: the line's, that of what it is compared with.
            gmacs: (V,) of one view of each row, under what it is compared with.
        """
        mixture = mixture_at(self.gmacs, gmacs)
        return Entry(
            method=MIXTURE,
            keep_ratio=keep_ratio,
            num_kept=float(mixture.between(self.num_kept)),
            gmacs=float(mixture.between(self.gmacs)),
            gmacs_backbone=self.gmacs_embed + float(mixture.between(self.gmacs_blocks)),
            clips_per_s=None,
            top1=mixture.expected(self.is_right),
            top5=mixture.expected(self.label_rank < TOP),
        )


class Mixture(NamedTuple):
    """Two neighbouring levels, chosen by chance; see `Levels.random_mixture`.

    Attributes:
        low: the cheaper level.
        high: the dearer one.
        weight: chance of the dearer one.
        moves: (V,) how much one more row like this one would move the weight, V times.
    """

    low: int
    high: int
    weight: float
    moves: Floats

    def between(self, values: npt.NDArray[Any]) -> Floats:
        """On the line between the two levels, (L,) -> () or (V, L) -> (V,)."""
        low, high = values[..., self.low], values[..., self.high]
        line: Floats = (1 - self.weight) * low + self.weight * high
        return line

    def expected(self, right: npt.NDArray[Any]) -> Floats:
        """What it gets right of what the levels get right, (V, L) -> (V, 1)."""
        gain = right[:, self.high].mean() - right[:, self.low].mean()
        return (self.between(right) + self.moves * gain)[:, None]


def mixture_at(levels: Floats, gmacs: Floats) -> Mixture:
    """The mixture of fixed levels whose mean cost is that of some rows.

    Args:
        levels: (L,) cost of each, in any order, at least two.
        gmacs: (V,) cost of each row.
    """
    order = np.argsort(levels)  # a dear selector can make 0.9 cost more than all tokens
    mean = float(gmacs.mean())
    above = int(np.clip(np.searchsorted(levels[order], mean), 1, len(order) - 1))
    low, high = int(order[above - 1]), int(order[above])
    step = levels[high] - levels[low]
    weight = float(np.clip((mean - levels[low]) / step, 0, 1))
    moves = (gmacs - mean) / step if 0 < weight < 1 else np.zeros_like(gmacs)
    return Mixture(low, high, weight, moves)


def levels_of(outcomes: Outcomes, info: EvaluationInfo, method: str) -> Levels:
    """The levels of one selector's method, which the evaluation has."""
    at: dict[float, int] = {
        condition.keep_ratio: column
        for column, condition in enumerate(outcomes.conditions)
        if condition.method in (method, FULL) and condition.keep_ratio is not None
    }
    ratios = tuple(sorted(at))
    columns = [at[ratio] for ratio in ratios]
    return Levels(
        method=method,
        keep_ratios=ratios,
        num_kept=np.array([info.num_kept[column] for column in columns]),
        gmacs=np.array([info.gmacs[column] for column in columns], np.float64),
        gmacs_blocks=np.array([info.gmacs_backbone[column] for column in columns])
        - info.gmacs_embed,
        gmacs_embed=info.gmacs_embed,
        label_rank=outcomes.label_rank[:, columns],
        confidence=outcomes.confidence[:, columns],
        mass=outcomes.mass[:, columns],
    )
