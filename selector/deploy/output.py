"""What a deployable model answers.

Axes: B clips, N tokens of the full grid, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers.utils import ModelOutput

from pipeline.backbones.tokens import Tokens


@dataclass
class LiteOutput(ModelOutput):
    """What one call gives: fields by name, by key (`output["logits"]`), or a tuple of those set.

    Attributes:
        loss: float32 scalar, the mean cross-entropy; None without labels.
        logits: float32 (B, C).
        kept: bool (B, N), the tokens that entered block 1.
        budget: int64 (B,), how many they are.
        scores: float (B, N) in [0, 1], predicted; None where all tokens are kept, unranked, and
            NaN in the rows of such clips beside others.
        confidence: float32 (B,), what a threshold budget went by; else None.
        group: int64 (B, N), which of the tokens at the head each token of the grid became part of,
            -1 for none; set by methods that act inside the blocks, for which `kept` are the tokens
            at whose place one reached the head.
    """

    # transformers wants a default for all fields but the first.
    loss: torch.Tensor | None = None
    logits: torch.Tensor = None  # type: ignore[assignment]
    kept: torch.Tensor = None  # type: ignore[assignment]
    budget: torch.Tensor = None  # type: ignore[assignment]
    scores: torch.Tensor | None = None
    confidence: torch.Tensor | None = None
    group: torch.Tensor | None = None


def kept_mask(left: Tokens, num_tokens: int) -> torch.Tensor:
    """Which tokens of the grid are left, bool (B, N)."""
    place = left.place[:, left.off_grid :]
    mask = torch.zeros((place.shape[0], num_tokens), dtype=torch.bool, device=place.device)
    return mask.scatter(1, place, torch.ones_like(place, dtype=torch.bool))


def joined(parts: Sequence[tuple[torch.Tensor, LiteOutput]], num_clips: int) -> LiteOutput:
    """One answer from those of some clips each.

    Args:
        parts: int64 (b,) positions in the batch, and the answer for these clips.
        num_clips: B.
    """
    whole: dict[str, torch.Tensor] = {}
    for rows, part in parts:
        for name, value in part.items():
            if name not in whole:
                unset = float("nan") if value.is_floating_point() else 0
                whole[name] = value.new_full((num_clips, *value.shape[1:]), unset)
            whole[name][rows] = value
    return LiteOutput(**whole)
