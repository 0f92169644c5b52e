"""What decides the outcome of an adaptation."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from pipeline.config import INFORMATIVE, ClipConfig, require_at_least, require_one_of
from pipeline.errors import ConfigError
from selector.deploy.config import LiteConfig
from selector.methods.names import LITE, LITE_SPREAD
from selector.methods.registry import parse_method
from selector.methods.spread import DEFAULT_SPREAD

DEFAULT_RANGE = (0.1, 0.7)


@dataclass(frozen=True, kw_only=True)
class AdaptConfig(ClipConfig):
    """Clips, method, and recipe of the training; open fields as `ClipConfig` has them.

    Raises:
        ConfigError: a field is outside its range; the message names field and rule.
    """

    method: str = LITE
    """Whose masks the backbone trains with, a name of `selector.methods.registry`."""
    selector: str | None = field(default=None, metadata=INFORMATIVE)
    """Folder of the trained selector, where the method needs one."""
    selector_digest: str | None = None
    """SHA-256 over the selector's files."""
    keep_low: float = DEFAULT_RANGE[0]
    """Smallest keep ratio that a step draws, and ..."""
    keep_high: float = DEFAULT_RANGE[1]
    """... the largest."""
    full_share: float = 0.1
    """Share of the steps that keep all tokens."""
    distill: bool = False
    """Learn what the frozen full model answers, not the labels."""
    steps: int | None = None
    """Optimiser steps; None: as many as `minutes` allow."""
    minutes: float = 5.0
    """Bound on training and validating, used where `steps` is None."""
    batch_size: int = 64
    learning_rate: float | None = None
    """Peak, after a warm-up and before a cosine to zero. None: 1e-3 at the shipped backbone's width
    of 96, and less for a wider one, in proportion."""
    lora_rank: int | None = None
    """Train low-rank adapters of this rank, which the weights take in at the end; None: all of
    blocks and head."""
    weight_decay: float = 0.05
    held_out: float = 0.1
    """Share of the videos, without those set aside, that judge and never train."""
    set_aside: float = 0.0
    """Share of all videos that are another judge's: they neither train nor judge here."""
    patience: int = 4
    """Looks at the held-out videos without a better loss before the training stops."""
    seed: int = 0
    shard_size: int = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        # Losses in half precision need scaling; bfloat16 does not.
        require_one_of("precision", self.precision, ("fp32", "bf16"))
        parse_method(self.method)
        if not 0 < self.keep_low <= self.keep_high <= 1:
            raise ConfigError(
                "the range of keep ratios must satisfy 0 < low <= high <= 1, got "
                f"{self.keep_low!r} to {self.keep_high!r}"
            )
        if not 0 <= self.full_share <= 1:
            raise ConfigError(f"full_share must lie in [0, 1], got {self.full_share!r}")
        if not 0 < self.held_out < 1:
            raise ConfigError(f"held_out must lie in (0, 1), got {self.held_out!r}")
        if not 0 <= self.set_aside < 1:
            raise ConfigError(f"set_aside must lie in [0, 1), got {self.set_aside!r}")
        if not 0 < self.minutes < math.inf:
            raise ConfigError(f"minutes must be above 0, got {self.minutes!r}")
        if self.learning_rate is not None and not 0 <= self.learning_rate < math.inf:
            raise ConfigError(f"learning_rate must be at least 0, got {self.learning_rate!r}")
        for name in ("steps", "lora_rank"):
            if getattr(self, name) is not None:
                require_at_least(name, getattr(self, name), 1)
        for name in ("batch_size", "patience"):
            require_at_least(name, getattr(self, name), 1)
        require_at_least("seed", self.seed, 0)

    @property
    def held_out_below(self) -> float:
        """What `is_held_out` takes for what judges, what is set aside among it."""
        return self.set_aside + self.held_out * (1 - self.set_aside)

    @property
    def judged_ratios(self) -> tuple[float, ...]:
        """Keep ratios that the held-out videos are judged at, descending; 1 first, always."""
        return tuple(dict.fromkeys((1.0, self.keep_high, self.middle, self.keep_low)))

    @property
    def middle(self) -> float:
        """Of the range; of a single ratio that one itself, to the last digit."""
        if self.keep_low == self.keep_high:
            return self.keep_low
        return round((self.keep_low + self.keep_high) / 2, 6)

    def lite_config(self, keep_ratio: float | None = None) -> LiteConfig:
        """What the adapted model does unless told otherwise."""
        ratio = self.middle if keep_ratio is None else keep_ratio
        spread = self.method == LITE_SPREAD
        return LiteConfig(
            method=LITE if spread else self.method,
            spread=DEFAULT_SPREAD if spread else 0.0,
            keep_ratio=ratio,
            sampling=self.sampling or None,
        )


def parse_range(text: str) -> tuple[float, float]:
    """Reads `0.1,0.7`, or one ratio for both ends.

    Raises:
        ConfigError: no one or two numbers; `AdaptConfig` checks which.
    """
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) not in (1, 2):
        raise ConfigError(f"a range of keep ratios is LOW,HIGH such as 0.1,0.7, got {text!r}")
    return numbers[0], numbers[-1]
