"""Spreading the kept tokens: sampled in proportion to what they are worth, not the very best alone.

The best tokens of a clip are neighbours that say the same, and what surrounds them is never seen.
Here a token's log-odds of being valuable only set how *densely* its neighbourhood is sampled: order
sampling (Rosen 1997), which sorts by `log w - log(-log u)` and keeps the first k, with the weights
`w = odds ** (1 / spread)`. The numbers `u` are not random but an even lattice, the same for every
clip, so nothing is left to chance and smaller budgets keep subsets of larger ones.

A spread of 0 is the paper's rule, the k best; a large one becomes the even lattice by itself.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from pipeline.clips.grid import TokenGrid

DEFAULT_SPREAD = 2.0
"""What `lite-spread` uses."""

# 1/g, 1/g^2, 1/g^3 for g^4 = g + 1: the three-dimensional golden ratio. Their multiples, modulo
# one, fill the unit interval evenly along every axis (Roberts' R3 sequence).
_PLASTIC = 1.2207440846057596
_STEPS = (_PLASTIC**-1, _PLASTIC**-2, _PLASTIC**-3)


def even_lattice(grid: TokenGrid) -> npt.NDArray[np.float64]:
    """A number in [0, 1) per token, (N,): those above any threshold are evenly spaced.

    A regular grid exists for few keep ratios only. Here token (t, y, x) has the fraction of
    `t a1 + y a2 + x a3`.
    """
    axes = np.indices(grid).reshape(3, -1)
    lattice: npt.NDArray[np.float64] = np.tensordot(_STEPS, axes, axes=1) % 1.0
    return lattice


def break_ties(scores: torch.Tensor, grid: TokenGrid) -> torch.Tensor:
    """The same ranking with equal scores in the order of the even lattice, not of the tokens.

    Where many tokens score alike (those of a still scene), the lower numbers would all be of the
    first frames. Of tokens that differ none changes its place.

    Args:
        scores: (B, N), any float dtype.
        grid: of the tokens.

    Returns:
        (B, N) float64, minus the place of each token in its clip's ranking: 0 is the best. Where a
        clip's scores are not all finite, NaN.
    """
    order = torch.from_numpy(np.argsort(-even_lattice(grid), kind="stable")).to(scores.device)
    ranked = order[scores[:, order].sort(dim=1, descending=True, stable=True).indices]
    place = torch.arange(scores.shape[1], device=scores.device, dtype=torch.float64)
    ranks = torch.empty_like(scores, dtype=torch.float64).scatter(
        1, ranked, -place.expand(scores.shape)
    )
    return ranks.masked_fill(~scores.isfinite().all(dim=1, keepdim=True), torch.nan)


def spread_offsets(grid: TokenGrid, spread: float) -> torch.Tensor:
    """What is added to a selector's logits before the highest are kept: (N,) float32.

    Args:
        grid: of the tokens.
        spread: 0 adds nothing.
    """
    rank = even_lattice(grid).argsort().argsort()
    gumbel = -np.log(-np.log((rank + 0.5) / len(rank)))
    return torch.from_numpy(spread * gumbel).float()
