"""Rankings that know nothing of the video: the baselines that everything must beat."""

from __future__ import annotations

import numpy as np
import torch

from selector.methods.rank.base import ClipBatch, Ranker
from selector.methods.spread import even_lattice


class RandomRanker(Ranker):
    """Uniform random scores that depend on the seed and the clip alone.

    Args:
        seed: several seeds show how much of a difference is luck.
    """

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed

    def scores(self, batch: ClipBatch) -> torch.Tensor:
        """(B, N) float64 in [0, 1)."""
        num_tokens = batch.backbone.grid.num_tokens
        rows = [np.random.default_rng([self._seed, c]).random(num_tokens) for c in batch.clip_ids]
        return torch.from_numpy(np.stack(rows))


class UniformRanker(Ranker):
    """Evenly spaced tokens, the same ones for every clip, at any keep ratio.

    Smaller budgets keep subsets of larger ones.
    """

    def scores(self, batch: ClipBatch) -> torch.Tensor:
        """(B, N) float64 in [0, 1)."""
        lattice = torch.from_numpy(even_lattice(batch.backbone.grid))
        return lattice.expand(len(batch), -1)
