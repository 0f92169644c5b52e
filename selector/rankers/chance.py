"""Rankings that know nothing of the video: the baselines that everything must beat."""

from __future__ import annotations

import numpy as np
import torch

from selector.rankers.base import ClipBatch, Ranker

# 1/g, 1/g^2, 1/g^3 for g^4 = g + 1: the three-dimensional golden ratio. Their multiples, modulo
# one, fill the unit interval evenly along every axis (Roberts' R3 sequence).
_PLASTIC = 1.2207440846057596
_STEPS = (_PLASTIC**-1, _PLASTIC**-2, _PLASTIC**-3)


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

    A regular grid exists for few ratios only. Here token (t, y, x) scores the fraction of
    `t a1 + y a2 + x a3`, so that every threshold keeps an even lattice, and smaller budgets keep
    subsets of larger ones.
    """

    def scores(self, batch: ClipBatch) -> torch.Tensor:
        """(B, N) float64 in [0, 1)."""
        axes = np.indices(batch.backbone.grid).reshape(3, -1)
        phase = np.tensordot(_STEPS, axes, axes=1) % 1.0
        return torch.from_numpy(phase).expand(len(batch), -1)
