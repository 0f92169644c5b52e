"""Gives a model its adaptive budget, picked on an evaluation's rows.

Where they do not speak for a budget, none is given; where they hardly do, it carries a warning.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from pipeline.errors import ConfigError
from selector.budgets.adaptive import CrossFit, cross_fit, shares_of
from selector.budgets.candidates import Candidate, Mass, Thresholds
from selector.budgets.clip_budget import MassBudget, ThresholdBudget, small_ratio
from selector.budgets.confidence_names import DEFAULT_CONFIDENCE
from selector.budgets.levels import Floats, Ints, Levels, SecondOpinion
from selector.budgets.pick import Goal, Outcome
from selector.budgets.rows import CalibrationRows
from selector.deploy.config import LiteConfig
from selector.statistics import mean_interval, wilson
from selector.training.split import halves

KINDS = (ThresholdBudget.kind, MassBudget.kind)
_BACKBONE = "backbone:"

Judge = Callable[[str, Ints], SecondOpinion]
"""From a classifier's name and rows of the plan to its confidences, NaN where it has none."""


@dataclass(frozen=True, kw_only=True)
class BudgetRequest:
    """Which budget is wanted, and what it must meet.

    Raises:
        ConfigError: options that do not go together.
    """

    goal: Goal
    """A loss counts from the base ratio."""
    kind: str = ThresholdBudget.kind
    """One of `KINDS`."""
    base_ratio: float | None = None
    """Keep ratio of the fixed budget that is replaced; None: the model's."""
    small_ratio: float | None = None
    """Keep ratio of the easy and the hopeless; None: the paper's."""
    confidence: str | None = None
    """See `selector.budgets.confidence_names`; None: the backbone on the fewest tokens."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigError(f"budget must be one of {', '.join(KINDS)}, got {self.kind!r}")
        if self.kind == MassBudget.kind and (self.small_ratio, self.confidence) != (None, None):
            raise ConfigError("a small ratio and a confidence belong to the threshold budget")


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """The same rows, each half of the videos judged by what was picked on the other."""

    gmacs: float
    accuracy: float
    difference: float
    """This accuracy minus the base's, with its interval over videos."""
    difference_low: float
    difference_high: float
    gain: float
    """This accuracy minus that of a random mixture of fixed budgets of the same cost."""
    gain_low: float
    gain_high: float


@dataclass(frozen=True, kw_only=True)
class Calibrated:
    """A model's new configuration, and what it does."""

    config: LiteConfig
    outcome: Outcome
    """On the rows it was picked on, which flatters it."""
    held_out: HeldOut
    """What to expect."""
    shares: dict[int, float]
    """Number of tokens -> share of the clips that get so many."""
    num_videos: int
    num_failed: int
    """Clips left out because they could not be evaluated."""
    num_trained_on: int
    """Clips left out because the selector may have been trained on their videos."""
    warnings: tuple[str, ...]
    """What speaks against using it."""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, without the configuration."""
        names = ("num_videos", "num_failed", "num_trained_on")
        return {
            "outcome": asdict(self.outcome),
            "held_out": asdict(self.held_out),
            "shares": {str(num): share for num, share in self.shares.items()},
            **{name: getattr(self, name) for name in names},
            "warnings": list(self.warnings),
        }


def calibrate(
    rows: CalibrationRows, wanted: BudgetRequest, judge: Judge | None = None
) -> Calibrated:
    """Pick a model's budget; nothing is written.

    Args:
        rows: what is known of the model.
        wanted: the budget.
        judge: asks a second model, where the confidence is one.

    Raises:
        ConfigError: rows are missing (names the command that makes them), too few, or show no gain;
            or the goal is out of reach.
    """
    base_ratio = rows.model.keep_ratio if wanted.base_ratio is None else wanted.base_ratio
    candidate, confidence = _candidate(rows, wanted, base_ratio)
    if isinstance(candidate, Thresholds) and isinstance(candidate.asked, str):
        if judge is None:
            raise ConfigError(
                f"no evaluation holds the confidence of {confidence}: it is asked about the "
                "videos, and --data-root must say where they are"
            )
        rows = rows.with_opinion(confidence, judge(confidence, rows.clip_ids))
    levels, goal = rows.levels, wanted.goal
    _check_labels(rows, candidate.base)
    try:
        picked, outcome, fitted = _pick(levels, candidate, goal, rows.units)
    except ConfigError as error:
        name = f"{levels.method}{candidate.name} from {levels.keep_ratios[candidate.base]:g}"
        raise ConfigError(f"no budget for {name}: {error}") from error
    tokens = dict(zip(levels.keep_ratios, levels.num_kept.tolist(), strict=True))
    shares = shares_of(levels, candidate.give(levels, picked))
    held_out = _held_out(levels, candidate.base, fitted, rows.units)
    found = Calibrated(
        config=replace(rows.model, confidence=confidence, budget=candidate.budget(levels, picked)),
        outcome=outcome,
        held_out=held_out,
        shares={tokens[ratio]: share for ratio, share in shares.items()},
        num_videos=len(np.unique(rows.video_ids)),
        num_failed=rows.num_failed,
        num_trained_on=rows.num_trained_on,
        warnings=tuple(_warnings(goal, held_out)),
    )
    config = rows.evaluation.config
    origin = {"dataset": config.dataset, "split": config.split, "goal": goal.to_dict()}
    origin |= {"evaluation": config.fingerprint()}
    return replace(found, config=replace(found.config, calibration=origin | found.to_dict()))


def _candidate(
    rows: CalibrationRows, wanted: BudgetRequest, base_ratio: float
) -> tuple[Candidate, str]:
    """The rule whose parameters are picked, and the confidence that it asks."""
    if wanted.kind == MassBudget.kind:
        return Mass(base=rows.level(base_ratio)), DEFAULT_CONFIDENCE
    small = small_ratio(base_ratio) if wanted.small_ratio is None else wanted.small_ratio
    # What is wrong with the ratios themselves is no matter of rows.
    ThresholdBudget(base_ratio=base_ratio, small_ratio=small, alpha=0.0, beta=1.0)
    at = {"base": rows.level(base_ratio), "small": rows.level(small)}
    confidence = wanted.confidence or f"{_BACKBONE}{rows.levels.keep_ratios[0]}"
    if not confidence.startswith(_BACKBONE):
        return Thresholds(**at, asked=confidence), confidence
    try:
        ratio = float(confidence.removeprefix(_BACKBONE))
    except ValueError:
        raise ConfigError(f"confidence {confidence!r} names no keep ratio") from None
    return Thresholds(**at, asked=rows.level(ratio)), confidence


def _check_labels(rows: CalibrationRows, base: int) -> None:
    right, num_classes = rows.levels.is_right[:, base], len(rows.evaluation.info.label_names)
    if wilson(int(right.sum()), len(right))[0] <= 1 / num_classes:
        raise ConfigError(
            f"with {rows.levels.keep_ratios[base]:g} of the tokens {right.sum()} of {len(right)} "
            f"clips of {rows.evaluation.root} are right, no more than chance among {num_classes} "
            "classes, and that tells nothing of budgets: are the labels this checkpoint's?"
        )


def _pick(
    levels: Levels, candidate: Candidate, goal: Goal, units: Any
) -> tuple[tuple[float, ...], Outcome, CrossFit]:
    """The parameters, what they do on these rows, and what each half does under the other's.

    Raises:
        ConfigError: the goal is out of reach, or nothing is gained.
    """
    picked, outcome = candidate.pick(levels, goal)
    if outcome.warning is not None:
        raise ConfigError(outcome.warning)
    given = np.unique(candidate.give(levels, picked))
    if len(given) == 1:
        raise ConfigError(
            f"the best of them gives every clip the same {levels.num_kept[given[0]]} tokens, as a "
            f"fixed keep ratio of {levels.keep_ratios[given[0]]:g} does without looking"
        )
    fitted = cross_fit(levels, candidate, goal, halves(units))
    gmacs = float(fitted.gmacs.mean())
    if goal.max_loss is not None and gmacs >= outcome.base_gmacs:
        raise ConfigError(
            f"picked on one half of the videos it costs {gmacs:.4g} GFLOPs on the other, no less "
            f"than the fixed budget's {outcome.base_gmacs:.4g}"
        )
    return picked, outcome, fitted


def _held_out(levels: Levels, base: int, fitted: CrossFit, units: Any) -> HeldOut:
    ratio = levels.keep_ratios[base]
    right = levels.mixed("", ratio, fitted.given, fitted.gmacs).top1
    mixture = levels.random_mixture(ratio, fitted.gmacs).top1
    gaps = np.concatenate([right - levels.is_right[:, [base]], right - mixture], axis=1)
    low, high = mean_interval(_of_units(gaps, units), (-1.0, 1.0))
    difference, gain = gaps.mean(axis=0).tolist()
    return HeldOut(
        gmacs=float(fitted.gmacs.mean()),
        accuracy=float(right.mean()),
        difference=difference,
        difference_low=float(low[0]),
        difference_high=float(high[0]),
        gain=gain,
        gain_low=float(low[1]),
        gain_high=float(high[1]),
    )


def _of_units(values: Floats, units: Any) -> Floats:
    """(V, K) of rows to (videos or groups, K), with the same mean."""
    unit, names = pd.factorize(units)
    sums = np.zeros((len(names), values.shape[1]))
    np.add.at(sums, unit, values)
    return sums * (len(names) / len(values))


def _warnings(goal: Goal, held_out: HeldOut) -> Iterator[str]:
    if goal.max_loss is not None and -held_out.difference > goal.max_loss:
        yield (
            f"on videos that it was not picked on it loses {-100 * held_out.difference:.2f} "
            f"points, more than the {100 * goal.max_loss:.2f} allowed"
        )
    if goal.target_gmacs is not None and held_out.gmacs > 1.01 * goal.target_gmacs:
        yield (
            f"on videos that it was not picked on it costs {held_out.gmacs:.4g} GFLOPs, more than "
            f"the {goal.target_gmacs:.4g} asked for"
        )
    if held_out.gain_high < 0:
        yield "fixed keep ratios of the same cost are more accurate: use one of them"
    elif held_out.gain_low <= 0:
        yield "these videos do not show that it is more accurate than fixed ratios of its cost"
