"""Methods that choose before the first block: a score per token, and the best are kept.

Axes: B clips, N tokens of the full grid, L settings.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch

from pipeline.backbones.tokens import Reducer, Tokens, reduce
from selector.budgets.clip_budget import mass_of_tokens
from selector.methods.base import ClipBatch, Method
from selector.methods.cost import CostModel, Flow, TokenCounts
from selector.methods.keep import best_tokens, num_kept, of_equal_counts
from selector.methods.spread import break_ties


@dataclass(frozen=True)
class Ranking:
    """What a ranking says of a batch.

    Attributes:
        scores: (B, N), any float dtype and scale; not finite where the clip has no scores.
        reasons: position in the batch -> why it has none, where that is known.
        predicted: (B, N), the value each token is predicted to have, not negative; None for a
            ranking that predicts no oracle score, so that there is no mass to speak of.
    """

    scores: torch.Tensor
    reasons: Mapping[int, str] = field(default_factory=dict)
    predicted: torch.Tensor | None = None


@dataclass(frozen=True)
class KeepBest(Reducer):
    """Keeps the `k` tokens of the highest scores (B, N); int64 (B,) gives each clip its own `k`."""

    scores: torch.Tensor
    k: int | torch.Tensor

    def split(self) -> Iterator[tuple[torch.Tensor, Reducer]] | None:
        """Clips of equal `k`, where each has its own."""
        if isinstance(self.k, int):
            return None
        return ((rows, KeepBest(self.scores[rows], num)) for num, rows in of_equal_counts(self.k))

    def before(self, x: Tokens) -> Tokens:
        """Drop the others."""
        assert isinstance(self.k, int), "clips of other counts run apart: `split`"
        return reduce(x, best_tokens(x, self.scores, self.k))


class RankingMethod(Method):
    """Scores tokens; its setting is the number that is kept.

    Attributes:
        ties: whether many tokens of a clip may score alike, which are then kept in the order of
            the even lattice; else the lower token number goes first.
        gmacs: what ranking one view costs beyond embedding it; None for an oracle.
    """

    gmacs: float | None = 0.0
    ties: bool = False

    @abstractmethod
    def rank(self, batch: ClipBatch) -> Ranking:
        """Score every token of a batch, on any device; called under `torch.no_grad()`."""

    def prepare(self, batch: ClipBatch) -> Ranking:
        """The ranking, on the backbone's device."""
        found = self.rank(batch)
        scores = found.scores.to(batch.tokens.values.device)
        if self.ties:
            scores = break_ties(scores, batch.backbone.grid)
        return Ranking(scores, found.reasons, found.predicted)

    def reasons(self, prepared: Ranking) -> Mapping[int, str]:
        """The clips whose scores are not all finite."""
        finite = prepared.scores.isfinite().all(dim=1).tolist()
        unknown = f"the scores of {self} are not finite"
        return {i: prepared.reasons.get(i, unknown) for i, ok in enumerate(finite) if not ok}

    def kept_mass(
        self, prepared: Ranking, settings: Sequence[int]
    ) -> npt.NDArray[np.float64] | None:
        """Of the predicted values, where there are any."""
        if prepared.predicted is None:
            return None
        return mass_of_tokens(prepared.predicted, prepared.scores, settings).cpu().numpy()

    def reducer(self, prepared: Ranking, setting: int) -> KeepBest:
        """Keep so many."""
        return KeepBest(prepared.scores, setting)

    def knobs(self, flow: Flow) -> Sequence[int]:
        """From all tokens of the grid to one."""
        return range(flow.num - flow.off_grid, 0, -1)

    def counts(self, setting: int, flow: Flow) -> TokenCounts:
        """The same all the way."""
        return TokenCounts.constant(setting + flow.off_grid, flow.num_layers)

    def overhead(self, setting: int, flow: Flow) -> float | None:
        """`gmacs`."""
        return self.gmacs

    def setting(self, keep_ratio: float, costs: CostModel) -> int:
        """The paper's `int(N * P)`."""
        return num_kept(costs.num_tokens, keep_ratio)
