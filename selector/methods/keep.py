"""How many tokens a keep ratio leaves, and which: the one place where both are decided."""

from __future__ import annotations

import numbers
from collections.abc import Iterator, Sequence

import torch

from pipeline.backbones.tokens import Reduction, Tokens
from pipeline.errors import ConfigError

KEEP_RATIOS = (0.9, 0.7, 0.5, 0.3, 0.2, 0.1)
"""The paper's P-Ratios (Tables 1-2 and 6) and two harder ones; what reports show by default."""


def num_kept(num_tokens: int, keep_ratio: float) -> int:
    """Tokens kept, the paper's `k = int(N * P)`; at least one.

    The tiny addend undoes binary rounding: `int(100 * 0.29)` is 28 in floating point.

    Raises:
        ConfigError: `keep_ratio` is outside (0, 1].
    """
    if isinstance(keep_ratio, bool) or not isinstance(keep_ratio, numbers.Real):
        raise ConfigError(f"a keep ratio must be a number in (0, 1], got {keep_ratio!r}")
    if not 0 < keep_ratio <= 1:
        raise ConfigError(f"a keep ratio must lie in (0, 1], got {keep_ratio!r}")
    return max(1, int(num_tokens * keep_ratio + 1e-9))


def kept_counts(
    num_tokens: int, keep_ratio: float | Sequence[float] | torch.Tensor, num_clips: int
) -> int | list[int]:
    """Tokens kept of every clip where `keep_ratio` is one number, else those of each clip.

    Raises:
        ConfigError: a ratio is outside (0, 1], or they are not as many as the clips.
    """
    if isinstance(keep_ratio, torch.Tensor):
        # 0.29 is 0.28999999 in float32, and one token less of 100: its shortest decimal is meant.
        given = keep_ratio.detach().cpu()
        given = given.float() if given.dtype is torch.bfloat16 else given
        decimals = [float(str(value)) for value in given.reshape(-1).numpy()]
        keep_ratio = decimals if given.dim() else decimals[0]
    if isinstance(keep_ratio, str) or not isinstance(keep_ratio, Sequence):
        return num_kept(num_tokens, keep_ratio)
    if len(keep_ratio) != num_clips:
        raise ConfigError(
            f"keep ratios must be one for all clips or one for each, got {len(keep_ratio)} for "
            f"{num_clips} clips"
        )
    return [num_kept(num_tokens, ratio) for ratio in keep_ratio]


def of_equal_counts(counts: torch.Tensor) -> Iterator[tuple[int, torch.Tensor]]:
    """Each number of tokens and the clips that keep so many, ascending.

    Clips of one number run as one batch. Packing clips of any numbers into one row, with attention
    inside each clip, is no faster at VideoMAE-B's width; padding is slower (BENCHMARKS.md).

    Args:
        counts: int64 (B,).

    Returns:
        Pairs of a number and int64 (b,) positions in the batch.
    """
    for num in counts.unique().tolist():
        yield num, (counts == num).nonzero().squeeze(1)


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


def best_tokens(x: Tokens, scores: torch.Tensor, k: int) -> Reduction:
    """Keeps the `k` best tokens of each clip, in ascending order, and the prefix.

    Args:
        x: all tokens of the grid, or what is left of them, unmerged.
        scores: (B, N) by place on the grid.
        k: tokens of the grid to keep, at least one; a prefix token on the grid is one of them.
    """
    left = x.num - x.off_grid
    if left < scores.shape[1]:
        scores = scores.gather(1, x.place[:, x.off_grid :])
    needed = x.prefix - x.off_grid
    if needed:
        scores = scores.clone()
        scores[:, :needed] = torch.inf
    keep = top_tokens(scores, min(k, left))
    if x.off_grid:
        first = torch.arange(x.off_grid, device=keep.device).expand(keep.shape[0], -1)
        keep = torch.cat([first, keep + x.off_grid], dim=1)
    return Reduction(keep)
