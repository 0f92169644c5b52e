"""How well predicted token scores rank a clip's tokens, measured against the oracle.

The oracle's order is that of its **signed** cam: the paper's score is zero on every token of
negative cam, so the score alone ties them all. Every measure is taken per clip and then averaged,
over whichever tokens of a clip are given: all of them, or the sample that a store keeps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch.nn import functional as F

from selector.methods.keep import KEEP_RATIOS, num_kept, top_tokens
from selector.statistics import spearman


def rank_correlation(predicted: torch.Tensor, cam: torch.Tensor) -> torch.Tensor:
    """Spearman's rank correlation of each clip, ties averaged.

    A constant prediction orders nothing and counts as 0; a constant cam has no order to find and
    gives NaN.

    Args:
        predicted: (B, K) scores in any monotonic unit.
        cam: (B, K) the oracle's signed cam.

    Returns:
        (B,) float64 in [-1, 1], NaN where the cam is constant.
    """
    rho = torch.from_numpy(spearman(predicted.cpu().numpy(), cam.cpu().numpy())).to(cam.device)
    constant = cam.amin(dim=1) == cam.amax(dim=1)
    return torch.where(rho.isnan() & ~constant, 0.0, rho)


def recall_at(predicted: torch.Tensor, cam: torch.Tensor, k: int) -> torch.Tensor:
    """Share of the kept tokens that the oracle would keep too, (B,) float64.

    A kept token is a hit when its cam reaches the k-th highest, so that equal cams at the border
    (float16 makes some) are worth the same.
    """
    border = cam.topk(k, dim=1).values[:, -1:]
    hits = cam.gather(1, top_tokens(predicted, k)) >= border
    return hits.to(torch.float64).mean(1)


def mass_kept(predicted: torch.Tensor, score: torch.Tensor, k: int) -> torch.Tensor:
    """Share of a clip's oracle score lying on the kept tokens, (B,) float64; NaN if it has none."""
    mass = score.to(torch.float64)
    return mass.gather(1, top_tokens(predicted, k)).sum(1) / mass.sum(1)


@dataclass(frozen=True)
class RankingMetrics:
    """Means over clips; a clip without an answer to one of them is left out of that mean."""

    num_clips: int
    bce: float
    """Binary cross-entropy per token against the oracle's score (soft target), in nats."""
    spearman: float
    recall: dict[float, float] = field(default_factory=dict)
    """Keep ratio -> share of the kept tokens that the oracle keeps too."""
    mass: dict[float, float] = field(default_factory=dict)
    """Keep ratio -> share of the oracle's score that is kept."""


class RankingMeter:
    """Gathers the per-clip measures of one method over many batches.

    Args:
        keep_ratios: where recall and kept mass are taken.
    """

    def __init__(self, keep_ratios: Sequence[float] = KEEP_RATIOS) -> None:
        self.keep_ratios = tuple(keep_ratios)
        self._rows: list[torch.Tensor] = []

    def update(
        self,
        ranking: torch.Tensor,
        probability: torch.Tensor,
        cam: torch.Tensor,
        score: torch.Tensor,
    ) -> None:
        """Adds a batch of clips.

        Args:
            ranking: (B, K) what orders the tokens; higher is kept first.
            probability: (B, K) in [0, 1], what the cross-entropy judges.
            cam: (B, K) the oracle's signed cam.
            score: (B, K) the oracle's score in [0, 1].
        """
        bce = F.binary_cross_entropy(probability.double(), score.double(), reduction="none")
        columns = [bce.mean(1), rank_correlation(ranking, cam)]
        counts = [num_kept(cam.shape[1], ratio) for ratio in self.keep_ratios]
        columns += [recall_at(ranking, cam, k) for k in counts]
        columns += [mass_kept(ranking, score, k) for k in counts]
        self._rows.append(torch.stack(columns, dim=1).cpu())

    def result(self) -> RankingMetrics:
        """The means over all clips so far; NaN where no clip had an answer."""
        num = len(self.keep_ratios)
        rows = torch.cat(self._rows) if self._rows else torch.empty(0, 2 + 2 * num)
        means = rows.nanmean(dim=0).tolist()
        return RankingMetrics(
            num_clips=len(rows),
            bce=means[0],
            spearman=means[1],
            recall=dict(zip(self.keep_ratios, means[2 : 2 + num], strict=True)),
            mass=dict(zip(self.keep_ratios, means[2 + num :], strict=True)),
        )
