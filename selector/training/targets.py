"""What the selector learns to predict: the oracle's score, as it is or cleaned (paper, Sec. 4.4).

The paper names three ways of cleaning and none of their constants; those below are ours. Cleaning
sees the whole token grid of a clip, also where a store keeps only a sample of the embeddings.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional as F

from pipeline.errors import ConfigError, StoreError

if TYPE_CHECKING:
    from pipeline.store.reader import ShardData

EDGE_FACTOR = 0.5
"""What the outermost ring of each frame's tokens is multiplied by."""
PEAK_LEVEL = 0.5
"""Tokens scoring at least this form the areas that are measured."""
PEAK_MIN_TOKENS = 4
"""Areas of fewer tokens are removed."""
SHARPEN_POWER = 2.0
"""Exponent on the odds; 1 leaves the scores alone."""


def damp_edges(scores: torch.Tensor) -> torch.Tensor:
    """Damps the border tokens of every frame, where Grad-CAM is often spuriously high.

    Args:
        scores: (B, t, y, x) in [0, 1].
    """
    factor = torch.full_like(scores[0, 0], EDGE_FACTOR)
    factor[1:-1, 1:-1] = 1
    return scores * factor


def remove_peaks(scores: torch.Tensor) -> torch.Tensor:
    """Levels small isolated areas of high score to the mean of what surrounds them.

    An area is a set of tokens at or above `PEAK_LEVEL` that touch in time or space, diagonals
    included. Its surroundings are the neighbours that are not themselves removed.

    Args:
        scores: (B, t, y, x) in [0, 1].
    """
    high = scores >= PEAK_LEVEL
    small = high & (_area_sizes(high) < PEAK_MIN_TOKENS)
    kept = (~small).to(scores.dtype)
    around, count = _box_sum(scores * kept), _box_sum(kept)
    return torch.where(small, around / count.clamp_min(1), scores)


def sharpen(scores: torch.Tensor) -> torch.Tensor:
    """Moves scores towards 0 and 1 by raising their odds to a power; 0, 1/2 and 1 stay.

    Args:
        scores: any shape, in [0, 1].
    """
    high, low = scores**SHARPEN_POWER, (1 - scores) ** SHARPEN_POWER
    return high / (high + low)


CLEANERS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "edges": damp_edges,
    "peaks": remove_peaks,
    "sharpen": sharpen,
}


def parse_cleaning(text: str) -> tuple[str, ...]:
    """The cleaning steps in `"edges,sharpen"`, in that order; `"none"` and `""` are no step.

    Raises:
        ConfigError: a step that does not exist.
    """
    steps = tuple(name for name in text.replace(" ", "").split(",") if name not in ("", "none"))
    for name in steps:
        if name not in CLEANERS:
            raise ConfigError(f"clean must be none or of {', '.join(CLEANERS)}, got {name!r}")
    return steps


def clean_scores(scores: torch.Tensor, steps: Sequence[str]) -> torch.Tensor:
    """The training target: `scores` after the cleaning `steps`, in their order.

    Args:
        scores: (B, t, y, x) float, the oracle's scores in [0, 1], finite.
        steps: names of `CLEANERS`.

    Returns:
        (B, t, y, x), still in [0, 1].
    """
    for name in steps:
        scores = CLEANERS[name](scores)
    return scores


def _area_sizes(mask: torch.Tensor) -> torch.Tensor:
    """Tokens in the connected area of each token of `mask` (B, t, y, x); 0 outside the mask."""
    batch, num_tokens = mask.shape[0], mask[0].numel()
    # Every token starts with a name of its own; neighbours take the largest until none changes.
    # Float32 names are exact: a grid has far fewer than 2**24 tokens.
    names = torch.arange(1, num_tokens + 1, device=mask.device, dtype=torch.float32)
    label = names.view(mask[0].shape) * mask
    while True:
        grown = F.max_pool3d(label[:, None], 3, stride=1, padding=1)[:, 0] * mask
        if torch.equal(grown, label):
            break
        label = grown
    flat = label.view(batch, -1).long()
    sizes = torch.zeros(batch, num_tokens + 1, dtype=torch.long, device=mask.device)
    sizes.scatter_add_(1, flat, torch.ones_like(flat))
    sizes[:, 0] = 0
    return sizes.gather(1, flat).view(mask.shape)


def _box_sum(values: torch.Tensor) -> torch.Tensor:
    """Sum over the 3x3x3 box around each token; outside the grid counts as zero."""
    kernel = torch.ones(1, 1, 3, 3, 3, dtype=values.dtype, device=values.device)
    return F.conv3d(values[:, None], kernel, padding=1)[:, 0]


def check_finite(where: str, data: ShardData, rows: np.ndarray, names: Sequence[str]) -> None:
    """Refuses NaN and infinity in clips that are ok.

    Args:
        where: the store.
        data: one of its shards.
        rows: of the clips within the shard.
        names: of the arrays to look at.

    Raises:
        StoreError: names the clip.
    """
    for name in names:
        values = getattr(data, name)
        for row in rows:
            if not np.isfinite(values[row]).all():
                raise StoreError(
                    f"{name} of clip {data.clips['clip_id'].iloc[row]} in {where} holds NaN or "
                    "infinity although the clip is ok: the store is damaged; see "
                    f"`lite-pipeline verify {where}`"
                )
