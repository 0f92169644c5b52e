"""What an oracle is: something that knows the answer and says what each token was worth to it.

To add one: a class with `values` in a file of its own, its name in `pipeline.oracle.names`.

Axes: B clips, N tokens of the full grid.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from pipeline.backbones.base import Backbone
from pipeline.backbones.tokens import Tokens


@dataclass(frozen=True)
class OracleMaps:
    """What an oracle says of some clips.

    Attributes:
        cam: float32 (B, N), signed; rank by it, because the score ties all negative tokens at 0.
        logits: float32 (B, num_classes), of the unchanged model.
    """

    cam: Tensor
    logits: Tensor


class Oracle(Protocol):
    """Values tokens for one class."""

    def values(self, backbone: Backbone, tokens: Tokens, labels: Tensor | None) -> OracleMaps:
        """Value every token of a batch.

        Args:
            backbone: frozen model.
            tokens: from `backbone.embed`, all of them.
            labels: int64 (B,), the class to explain; None explains each clip's predicted class.

        Raises:
            ConfigError: the backbone has no such layer, or none that says anything.
        """


def explained_classes(logits: Tensor, labels: Tensor | None) -> Tensor:
    """The class to explain for each clip, int64 (B,): the label, or else the predicted class."""
    return logits.detach().argmax(-1) if labels is None else labels.to(logits.device)


def scores_from_cam(cam: Tensor) -> Tensor:
    """The paper's score: min-max of relu(cam) per clip.

    Args:
        cam: float32 (B, N), signed.

    Returns:
        float32 (B, N) in [0, 1]. A degenerate map (no token above the others after the ReLU: all
        negative, or constant) has no order to show and is all zeros, never NaN.
    """
    positive = cam.clamp_min(0)
    low = positive.amin(dim=1, keepdim=True)
    spread = positive.amax(dim=1, keepdim=True) - low
    # A spread below the smallest normal number is rounding, and dividing by it would overflow.
    standing_out = spread >= torch.finfo(cam.dtype).tiny
    return torch.where(standing_out, (positive - low) / torch.where(standing_out, spread, 1), 0.0)
