"""What a training tells: where it stands, and what came out."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from selector.training.config import SelectorConfig
from selector.training.files import json_values
from selector.training.metrics import RankingMetrics


@dataclass(frozen=True)
class TrainProgress:
    """Where a training stands."""

    epoch: int
    """Current epoch, from 1."""
    epochs: int
    """Epochs at most."""
    clips_done: int
    """Training clips of this epoch so far."""
    clips_total: int
    """Training clips per epoch."""
    tokens_per_s: float
    """Since this process began to train, reading included."""
    held_out_loss: float | None
    """Of the last finished epoch."""


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """What came out, on held-out clips."""

    selector: SelectorConfig
    """Its shape and where it comes from."""
    best_epoch: int
    """Epoch the weights are from, from 1."""
    num_epochs: int
    """Epochs trained until it stopped."""
    macs_per_token: float
    """Cost of the selector on a whole clip."""
    num_train: int
    """Clips trained on."""
    num_held_out: int
    """Held-out clips; `methods` judge as many of them as fit in memory."""
    num_failed: int
    """Clips left out because they failed in the store."""
    num_degenerate: int
    """Clips left out because no token has a positive cam."""
    num_missing: int
    """Clips of the plan that the store does not hold yet."""
    methods: dict[str, RankingMetrics]
    """`selector`, `random` and `oracle`. The cross-entropy of `random` is that of the best
    constant; that of `oracle` is its score's own entropy, the least anything can reach."""
    history: list[dict[str, float]]
    """Per epoch: train_loss, held_out_loss (both against the cleaned target), spearman."""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; a measure without an answer is None."""
        found: dict[str, Any] = json_values(asdict(self))
        return found

    @classmethod
    def from_dict(cls, selector: SelectorConfig, found: dict[str, Any]) -> TrainResult:
        """The inverse of `to_dict` without its `selector`."""
        methods = {name: _metrics(values) for name, values in found["methods"].items()}
        return cls(selector=selector, **found | {"methods": methods})


def _metrics(found: dict[str, Any]) -> RankingMetrics:
    def number(value: float | None) -> float:
        return math.nan if value is None else value

    return RankingMetrics(
        num_clips=found["num_clips"],
        bce=number(found["bce"]),
        spearman=number(found["spearman"]),
        recall={float(k): number(v) for k, v in found["recall"].items()},
        mass={float(k): number(v) for k, v in found["mass"].items()},
    )
