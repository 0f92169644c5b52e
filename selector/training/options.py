"""The options of a training that change its outcome."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pipeline.errors import ConfigError
from selector.training.config import ARCHS


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Everything of the training that changes the selector.

    Raises:
        ConfigError: a field is outside its range.
    """

    arch: str = "mlp"
    """One of `selector.training.config.ARCHS`."""
    num_layers: int | None = None
    """Fully connected layers, convolutions or blocks; None: the architecture's own."""
    width: int | None = None
    """Hidden channels; None takes a third of the embedding's (see `default_width`)."""
    clean: tuple[str, ...] = ()
    """Cleaning steps of the target, in their order."""
    epochs: int = 20
    """Passes over the training clips at most."""
    patience: int = 4
    """Epochs without a better held-out loss before stopping."""
    learning_rate: float = 3e-3
    """Peak of the cosine schedule."""
    weight_decay: float = 0.01
    """AdamW's decoupled decay."""
    batch_tokens: int = 8192
    """Tokens per step, rounded down to whole clips."""
    held_out: float = 0.1
    """Share of the videos that is never trained on."""
    seed: int = 0
    """Of initial weights and of the shuffling."""

    def __post_init__(self) -> None:
        if self.arch not in ARCHS:
            raise ConfigError(f"arch must be one of {', '.join(ARCHS)}, got {self.arch!r}")
        if self.arch in ("mlp4", "mlp5") and self.num_layers is not None:
            raise ConfigError(f"{self.arch} fixes the layers; use --arch mlp with --layers N")
        for name in ("epochs", "patience", "batch_tokens"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)!r}")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise ConfigError(f"learning_rate must be above 0, got {self.learning_rate!r}")


def default_width(hidden_size: int) -> int:
    """Hidden channels of a selector unless asked otherwise: a third of the embedding's.

    The paper does not tell. For VideoMAE-B this is 256: 0.41 GMACs for all tokens, 0.2 % of the
    full model. Added to the closed form of the cost it gives the paper's GFLOPs to the digit at
    every keep ratio (181, 159, 118, 80, 46), which half or a quarter do not.
    """
    return max(8, hidden_size // 3)
