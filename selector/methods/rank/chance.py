"""Rankings that know nothing of the video: the baselines that everything must beat."""

from __future__ import annotations

import numpy as np
import torch

from selector.methods.rank.base import ClipBatch, Ranking, RankingMethod
from selector.methods.spread import even_lattice


class RandomMethod(RankingMethod):
    """Uniform random scores that depend on the seed, the video and the view alone.

    Args:
        seed: several seeds show how much of a difference is luck.
    """

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed

    def __str__(self) -> str:
        return "random"

    def rank(self, batch: ClipBatch) -> Ranking:
        """(B, N) float64 in [0, 1)."""
        num_tokens = batch.backbone.grid.num_tokens
        entropies = batch.entropies(self._seed)
        rows = [np.random.default_rng(entropy).random(num_tokens) for entropy in entropies]
        return Ranking(torch.from_numpy(np.stack(rows)))


class UniformMethod(RankingMethod):
    """Evenly spaced tokens, the same ones for every clip, at any keep ratio.

    Smaller budgets keep subsets of larger ones.
    """

    def __str__(self) -> str:
        return "uniform"

    def rank(self, batch: ClipBatch) -> Ranking:
        """(B, N) float64 in [0, 1)."""
        lattice = torch.from_numpy(even_lattice(batch.backbone.grid))
        return Ranking(lattice.expand(batch.num_clips, -1))
