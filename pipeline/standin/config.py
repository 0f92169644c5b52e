"""What decides a backbone's training; two runs with equal settings give equal weights."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.clips.grid import TokenGrid
from pipeline.config import require_at_least, require_one_of
from pipeline.errors import ConfigError

FAMILY_SIZES: dict[str, dict[str, Any]] = {
    "videomae": {"num_frames": 16, "tubelet_size": 2},
    "timesformer": {"num_frames": 8, "tubelet_size": 1},
}
"""What a family's small model sees of a clip; both make the same token grid of it."""


@dataclass(frozen=True, kw_only=True)
class BackboneConfig:
    """Shape of the model and recipe of its training.

    Raises:
        ConfigError: a field is outside its range; the message names field and rule.
    """

    family: str = "videomae"
    """`videomae`, or `timesformer` with joint attention, whose tokens are of single frames."""
    num_frames: int = 16
    tubelet_size: int = 2
    image_size: int = 48
    patch_size: int = 8
    hidden_size: int = 96
    num_layers: int = 6
    num_heads: int = 4
    steps: int = 6000
    """Optimiser steps. A resumed run may change it: the rate is constant until the last part."""
    batch_size: int = 64
    learning_rate: float = 2e-3
    warmup_steps: int = 150
    decay_share: float = 0.35
    """Share of the steps, at the end, over which the learning rate falls to zero."""
    weight_decay: float = 0.05
    keep_low: float = 0.12
    """Smallest share of the tokens a step keeps, drawn at random, and ..."""
    keep_high: float = 0.6
    """... the largest."""
    full_share: float = 0.1
    """Share of the steps that keep all tokens."""
    actor_weight: float = 1.0
    """Weight of the auxiliary loss at the first step: which action does this token show?"""
    actor_steps: int = 3500
    """Step at which that loss has faded out."""
    precision: str = "fp32"
    """`bf16` runs the matrix products in bfloat16: 2.2x faster where the CPU has AVX512-BF16."""
    seed: int = 0
    init: str = ""
    """Digest of the checkpoint it starts from; empty from scratch."""

    def __post_init__(self) -> None:
        require_one_of("family", self.family, FAMILY_SIZES)
        require_one_of("precision", self.precision, ("fp32", "bf16"))  # fp16: needs scaled losses
        for name in ("steps", "batch_size", "num_layers", "num_heads", "hidden_size"):
            require_at_least(name, getattr(self, name), 1)
        require_at_least("seed", self.seed, 0)
        if not 0 < self.learning_rate < math.inf:
            raise ConfigError(f"learning_rate must be above 0, got {self.learning_rate!r}")
        for whole, part in (
            ("num_frames", "tubelet_size"),
            ("image_size", "patch_size"),
            ("hidden_size", "num_heads"),
        ):
            if getattr(self, whole) % getattr(self, part):
                raise ConfigError(
                    f"{whole} ({getattr(self, whole)}) must be a multiple of {part} "
                    f"({getattr(self, part)})"
                )
        if self.family == "timesformer" and self.tubelet_size != 1:
            raise ConfigError(
                f"tubelet_size must be 1, got {self.tubelet_size}: a token of TimeSformer is a "
                "patch of one frame"
            )
        if not 0 < self.keep_low <= self.keep_high <= 1:
            raise ConfigError(
                f"keep_low and keep_high must satisfy 0 < low <= high <= 1, "
                f"got {self.keep_low!r} and {self.keep_high!r}"
            )

    @property
    def grid(self) -> TokenGrid:
        """Token counts along time, height and width."""
        side = self.image_size // self.patch_size
        return TokenGrid(self.num_frames // self.tubelet_size, side, side)

    def to_dict(self) -> dict[str, Any]:
        """All fields as plain JSON values."""
        return asdict(self)
