"""How many tokens a keep ratio leaves, and which: the one place where both are decided."""

from __future__ import annotations

import torch

from pipeline.errors import ConfigError

KEEP_RATIOS = (0.9, 0.7, 0.5, 0.3, 0.2, 0.1)
"""The paper's P-Ratios (Tables 1-2 and 6) and two harder ones; what reports show by default."""


def num_kept(num_tokens: int, keep_ratio: float) -> int:
    """Tokens kept, the paper's `k = int(N * P)`; at least one.

    The tiny addend undoes binary rounding: `int(100 * 0.29)` is 28 in floating point.

    Raises:
        ConfigError: `keep_ratio` is outside (0, 1].
    """
    if not 0 < keep_ratio <= 1:
        raise ConfigError(f"a keep ratio must lie in (0, 1], got {keep_ratio!r}")
    return max(1, int(num_tokens * keep_ratio + 1e-9))


def top_tokens(scores: torch.Tensor, k: int) -> torch.Tensor:
    """The `k` highest scores of each clip, as ascending token positions.

    Ties go to the lower position, on every device, so that a ranking is the same wherever it runs.

    Args:
        scores: (B, N), any float dtype, finite.
        k: tokens to keep, 1..N.

    Returns:
        (B, k) int64, ascending in each row.
    """
    order = torch.sort(scores, dim=1, descending=True, stable=True).indices
    return order[:, :k].sort(dim=1).values


def take_tokens(tokens: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """The tokens at `index` (B, K) of each clip: (B, N, D) -> (B, K, D)."""
    return tokens[torch.arange(len(tokens), device=tokens.device)[:, None], index]
