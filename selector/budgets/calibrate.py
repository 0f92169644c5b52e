"""Gives a model its adaptive budget: measure on labelled clips, choose, describe what was found."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from pipeline.errors import ConfigError
from selector.budgets.confidence_names import DEFAULT_CONFIDENCE, load_confidence
from selector.budgets.pick import Goal, Outcome, calibrate_mass, calibrate_thresholds
from selector.budgets.rules import LEVELS, MassBudget, ThresholdBudget, level_index, small_ratio
from selector.budgets.validation import LabelledClips, ValidationRows, measure
from selector.deploy.config import LiteConfig
from selector.deploy.model import LiteModel
from selector.methods.keep import num_kept
from selector.training.split import halves

_MASSES = np.arange(1, 100) / 100

Rule = TypeVar("Rule", ThresholdBudget, MassBudget)
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Calibrated:
    """A model's new configuration, and what it does."""

    config: LiteConfig
    outcome: Outcome
    """On the rows it was found on, which flatters it."""
    held_out: Outcome | None
    """On the same rows, each half of the videos judged by a budget found on the other half; None
    where a half is empty or cannot meet the goal."""
    shares: dict[int, float]
    """Number of tokens -> share of the clips that get so many."""
    num_failed: int

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self.outcome) | {
            "held_out": asdict(self.held_out) if self.held_out is not None else None,
            "shares": {str(k): v for k, v in self.shares.items()},
            "num_failed": self.num_failed,
        }


@dataclass(frozen=True, kw_only=True)
class _Levels:
    """The numbers of tokens that a budget gives, and last the base's, as the rows have them."""

    num_kept: list[int]
    gmacs: list[float]
    """Of a view, everything included."""
    base_gmacs: float
    """Of a view at the base budget, where it is fixed."""

    def outcome(self, rows: ValidationRows, given: Ints) -> Outcome:
        """What giving each row so many tokens does."""
        column = (np.array(self.num_kept) == given[:, None]).argmax(axis=1)
        return Outcome(
            num_rows=len(given),
            gmacs=float(np.array(self.gmacs)[column].mean()),
            accuracy=float(rows.correct[np.arange(len(given)), column].mean()),
            base_gmacs=self.base_gmacs,
            base_accuracy=float(rows.correct[:, -1].mean()),
        )


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
        confidence: see `selector.budgets.confidence_names`.

    Raises:
        ConfigError: an option is out of range, no clip is usable, or the goal is out of reach.
    """
    small = small_ratio(base_ratio) if small is None else small
    start = ThresholdBudget(base_ratio=base_ratio, small_ratio=small, alpha=0.0, beta=1.0)
    asked = load_confidence(confidence, model.backbone)
    num_tokens = model.backbone.grid.num_tokens
    counts = [num_kept(num_tokens, ratio) for ratio in (small, base_ratio)]
    gmacs = [
        model.costs.at(num, confidence=asked.extra_gmacs(num), ranked=True).total for num in counts
    ]
    rows = measure(model, batches, counts, confidence=asked)

    def find(rows: ValidationRows) -> ThresholdBudget:
        alpha, beta, _ = calibrate_thresholds(
            rows.confidence,
            rows.correct[:, 0],
            rows.correct[:, 1],
            gmacs_small=gmacs[0] - asked.gmacs,
            gmacs_base=gmacs[1] - asked.gmacs,
            gmacs_confidence=asked.gmacs,
            goal=goal,
        )
        return replace(start, alpha=alpha, beta=beta)

    def give(rule: ThresholdBudget, rows: ValidationRows) -> Ints:
        return rule.counts(torch.as_tensor(rows.confidence), num_tokens).numpy()

    config = replace(model.config, keep_ratio=base_ratio, confidence=confidence)
    levels = _Levels(num_kept=counts, gmacs=gmacs, base_gmacs=model.cost(counts[1]).total)
    return _calibrated(config, rows, levels, find, give)


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
    start = MassBudget(mass=0.5, levels=levels)
    num_tokens = model.backbone.grid.num_tokens
    allowed, base = start.level_counts(num_tokens), num_kept(num_tokens, base_ratio)
    gmacs = [model.costs.at(num, ranked=True).total for num in allowed]
    base_gmacs = model.cost(base).total
    rows = measure(model, batches, [*allowed, base], masses=_MASSES)

    def level(rows: ValidationRows) -> Ints:
        return level_index(torch.as_tensor(rows.needed), torch.tensor(allowed)).numpy()

    def find(rows: ValidationRows) -> MassBudget:
        mass, _ = calibrate_mass(
            _MASSES,
            level(rows),
            rows.correct[:, :-1],
            rows.correct[:, -1],
            gmacs=np.array(gmacs),
            gmacs_base=base_gmacs,
            goal=goal,
        )
        return replace(start, mass=mass)

    def give(rule: MassBudget, rows: ValidationRows) -> Ints:
        return np.array(allowed)[level(rows)[:, _MASSES.tolist().index(rule.mass)]]

    config = replace(model.config, keep_ratio=base_ratio, confidence=DEFAULT_CONFIDENCE)
    given = _Levels(num_kept=[*allowed, base], gmacs=[*gmacs, base_gmacs], base_gmacs=base_gmacs)
    return _calibrated(config, rows, given, find, give)


def _calibrated(
    config: LiteConfig,
    rows: ValidationRows,
    levels: _Levels,
    find: Callable[[ValidationRows], Rule],
    give: Callable[[Rule, ValidationRows], Ints],
) -> Calibrated:
    rule = find(rows)
    given = give(rule, rows)
    nums, times = np.unique(given, return_counts=True)
    result = Calibrated(
        config=replace(config, budget=rule),
        outcome=levels.outcome(rows, given),
        held_out=_held_out(rows, levels, find, give),
        shares={int(n): float(t) / len(given) for n, t in zip(nums, times, strict=True)},
        num_failed=rows.num_failed,
    )
    return replace(result, config=replace(result.config, calibration=result.to_dict()))


def _held_out(
    rows: ValidationRows,
    levels: _Levels,
    find: Callable[[ValidationRows], Rule],
    give: Callable[[Rule, ValidationRows], Ints],
) -> Outcome | None:
    """Cross-fitted over two halves of the videos; see `Calibrated.held_out`."""
    half = halves(rows.video_ids)
    given = np.zeros(len(half), np.int64)
    for judged in (half, ~half):
        try:
            given[judged] = give(find(rows[~judged]), rows[judged])
        except ConfigError:
            return None
    return levels.outcome(rows, given)
