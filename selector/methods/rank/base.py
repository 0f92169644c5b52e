"""What every way of ranking tokens offers: a score per token, before the first block.

Axes: B clips, T frames, N tokens of the full grid, D channels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
import torch

from pipeline.backbones.base import Backbone
from pipeline.backbones.tokens import Tokens
from pipeline.clips.views import View


@dataclass(frozen=True, kw_only=True)
class ClipBatch:
    """Some clips, decoded and embedded once for all rankers.

    A clip that could not be decoded is there too, all black, so that its neighbours' bits do not
    depend on it; what a ranker says of it is thrown away.
    """

    backbone: Backbone
    """Frozen; on the device of the tensors below."""
    frames: npt.NDArray[np.uint8]
    """(B, T, H, W, 3) RGB, as decoded: resized and cropped, not normalised."""
    pixel_values: torch.Tensor
    """(B, T, 3, H, W), the backbone's input."""
    tokens: Tokens
    """Patch embeddings with positions, all of them, as they enter block 1."""
    labels: torch.Tensor
    """int64 (B,), true classes, on the tokens' device; for oracles only."""
    clip_ids: tuple[int, ...]
    """Rows of the plan, what randomness is seeded by."""
    paths: tuple[str | None, ...]
    """Video files, for rankers that read the compressed stream; None where the clip is black."""
    views: tuple[View, ...]
    """Which segment and crop of its video each clip is."""

    def __len__(self) -> int:
        return len(self.clip_ids)


class Ranker(ABC):
    """Scores tokens; the highest are kept, and ties go to the lower token number.

    `gmacs` is what ranking one view costs beyond embedding it: 0 where nothing is computed, None
    for an oracle, which needs the label or the answer and can be no part of a faster model.
    """

    gmacs: float | None = 0.0
    reasons: Mapping[int, str] = MappingProxyType({})
    """Position in the last batch -> why that clip has no finite scores, where it is known."""

    @abstractmethod
    def scores(self, batch: ClipBatch) -> torch.Tensor:
        """Score every token of a batch: (B, N), any float dtype and scale, on any device.

        Called under `torch.no_grad()`. A clip whose scores are not finite fails for this ranker.
        """

    def predicted(self, scores: torch.Tensor) -> torch.Tensor | None:
        """The value that each token is predicted to have, not negative, from its score: (B, N).

        None for a ranking that predicts no oracle score, so that there is no mass to speak of.
        """
        return None
