"""Gives a model its adaptive budget: measure on labelled clips, choose, describe what was found."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch

from selector.budget import (
    LEVELS,
    Budget,
    MassBudget,
    ThresholdBudget,
    level_index,
    small_ratio,
)
from selector.calibration import Goal, Outcome, calibrate_mass, calibrate_thresholds
from selector.confidence import DEFAULT_CONFIDENCE, load_confidence
from selector.keep import num_kept
from selector.lite import LiteModel
from selector.lite_config import LiteConfig
from selector.validation import LabelledClips, ValidationRows, measure

_MASSES = np.arange(1, 100) / 100


@dataclass(frozen=True, kw_only=True)
class Calibrated:
    """A model's new configuration, and what it does on the rows it was found on."""

    config: LiteConfig
    outcome: Outcome
    shares: dict[int, float]
    """Number of tokens -> share of the clips that get so many."""
    num_failed: int

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self.outcome) | {
            "shares": {str(k): v for k, v in self.shares.items()},
            "num_failed": self.num_failed,
        }


def calibrate_threshold_budget(
    model: LiteModel,
    batches: Iterable[LabelledClips],
    goal: Goal,
    *,
    base_ratio: float,
    small: float | None = None,
    confidence: str = DEFAULT_CONFIDENCE,
) -> Calibrated:
    """Find the paper's alpha and beta.

    Args:
        model: what gets the budget.
        batches: labelled clips that the selector was not trained on.
        goal: what to meet; an accuracy loss counts from the base ratio.
        base_ratio: keep ratio of the clips that are neither easy nor hopeless.
        small: keep ratio of the others; None takes the paper's.
        confidence: see `selector.confidence.load_confidence`.

    Raises:
        ConfigError: an option is out of range, no clip is usable, or the goal is out of reach.
    """
    small = small_ratio(base_ratio) if small is None else small
    rule = ThresholdBudget(base_ratio=base_ratio, small_ratio=small, alpha=0.0, beta=1.0)
    asked = load_confidence(confidence, model.backbone)
    num_tokens = model.backbone.grid.num_tokens
    counts = [num_kept(num_tokens, ratio) for ratio in (small, base_ratio)]
    rows = measure(model, batches, counts, confidence=asked)
    alpha, beta, outcome = calibrate_thresholds(
        rows.confidence,
        rows.correct[:, 0],
        rows.correct[:, 1],
        gmacs_small=model.costs.at(counts[0], ranked=True).total,
        gmacs_base=model.costs.at(counts[1], ranked=True).total,
        gmacs_confidence=asked.gmacs,
        goal=goal,
    )
    outcome = replace(outcome, base_gmacs=model.cost(counts[1]).total)
    rule = replace(rule, alpha=alpha, beta=beta)
    given = rule.counts(torch.as_tensor(rows.confidence), num_tokens).numpy()
    config = replace(model.config, keep_ratio=base_ratio, confidence=confidence)
    return _calibrated(config, rule, outcome, rows, given)


def calibrate_mass_budget(
    model: LiteModel,
    batches: Iterable[LabelledClips],
    goal: Goal,
    *,
    base_ratio: float,
    levels: tuple[float, ...] = LEVELS,
) -> Calibrated:
    """Find the share of predicted mass that the kept tokens must hold.

    Args:
        model: what gets the budget.
        batches: labelled clips that the selector was not trained on.
        goal: what to meet; an accuracy loss counts from the base ratio.
        base_ratio: keep ratio of the fixed budget that this one replaces.
        levels: keep ratios that a budget may have, ascending.

    Raises:
        ConfigError: an option is out of range, no clip is usable, or the goal is out of reach.
    """
    rule = MassBudget(mass=0.5, levels=levels)
    num_tokens = model.backbone.grid.num_tokens
    allowed, base = rule.level_counts(num_tokens), num_kept(num_tokens, base_ratio)
    rows = measure(model, batches, [*allowed, base], masses=_MASSES)
    level = level_index(torch.as_tensor(rows.needed), torch.tensor(allowed)).numpy()
    mass, outcome = calibrate_mass(
        _MASSES,
        level,
        rows.correct[:, :-1],
        rows.correct[:, -1],
        gmacs=np.array([model.costs.at(num, ranked=True).total for num in allowed]),
        gmacs_base=model.cost(base).total,
        goal=goal,
    )
    given = np.array(allowed)[level[:, _MASSES.tolist().index(mass)]]
    config = replace(model.config, keep_ratio=base_ratio)
    return _calibrated(config, replace(rule, mass=mass), outcome, rows, given)


def _calibrated(
    config: LiteConfig, rule: Budget, outcome: Outcome, rows: ValidationRows, given: np.ndarray
) -> Calibrated:
    nums, times = np.unique(given, return_counts=True)
    result = Calibrated(
        config=replace(config, budget=rule),
        outcome=outcome,
        shares={int(n): float(t) / len(given) for n, t in zip(nums, times, strict=True)},
        num_failed=rows.num_failed,
    )
    return replace(result, config=replace(result.config, calibration=result.to_dict()))
