"""Everything an evaluation says, from its committed rows alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import StoreError
from selector.evaluation.adaptive import MAX_LOSS, AdaptiveResult, adaptive_results
from selector.evaluation.bootstrap import LEVEL, NUM_DRAWS, interval, resampled_means
from selector.evaluation.classes import ANALYSIS_RATIO, ClassTrend, class_trends
from selector.evaluation.folder import Evaluation
from selector.evaluation.outcomes import read_outcomes
from selector.evaluation.table import Entry, TableRow, entries, make_table


@dataclass(frozen=True, kw_only=True)
class PairedDifference:
    """Top-1 of one line minus another's on the same videos, with its interval."""

    method: str
    keep_ratio: float
    against: str
    """The other line's method, at the same keep ratio."""
    difference: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class AdaptiveSetting:
    """How one `lite++` line of the table came about; see `AdaptiveResult`."""

    base_ratio: float
    small_ratio: float
    confidence_ratio: float
    share_small: float
    thresholds: tuple[tuple[float, float], ...]


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What `lite-pipeline evaluate` prints."""

    out: str
    dataset: str
    split: str
    backbone: str
    views: str
    num_videos: int
    """Videos that every number is over."""
    num_failed: int
    """Videos left out because no view of theirs could be evaluated."""
    num_missing: int
    """Videos still to be evaluated."""
    table: list[TableRow]
    paired: list[PairedDifference]
    """Every method against `random`, and `lite++` against `lite`."""
    classes: list[ClassTrend]
    adaptive: list[AdaptiveSetting]
    label_names: tuple[str, ...]
    num_draws: int
    level: float = LEVEL

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; NaN becomes None."""
        plain: dict[str, Any] = _no_nan(asdict(self))
        return plain


def summarise(
    evaluation: Evaluation,
    *,
    class_ratio: float = ANALYSIS_RATIO,
    max_loss: float = MAX_LOSS,
    num_draws: int = NUM_DRAWS,
    seed: int = 0,
) -> Summary:
    """Read the rows and compute the tables.

    Args:
        evaluation: finished or not; what is missing is counted.
        class_ratio: keep ratio of the per-class analysis.
        max_loss: top-1 share that LITE++'s thresholds may cost.
        num_draws: bootstrap resamples.
        seed: of the resampling.

    Raises:
        StoreError: nothing is committed, no video worked, or a file is damaged.
    """
    outcomes, config = read_outcomes(evaluation), evaluation.config
    if not len(outcomes.video_ids):
        raise StoreError(
            f"{evaluation.root}: none of the {outcomes.num_failed} evaluated videos worked "
            f"({outcomes.num_missing} are missing); see the column `error` of its results"
        )
    fixed = entries(outcomes, evaluation.info, evaluation.timing().clips_per_s(config))
    adaptive = adaptive_results(outcomes, evaluation.info, max_loss)
    lines = [*fixed, *(result.entry for result in adaptive)]
    return Summary(
        out=str(evaluation.root),
        dataset=config.dataset,
        split=config.split,
        backbone=config.backbone,
        views=f"{config.num_segments}x{config.num_crops}",
        num_videos=len(outcomes.video_ids),
        num_failed=outcomes.num_failed,
        num_missing=outcomes.num_missing,
        table=make_table(lines, num_draws, seed),
        paired=_paired(lines, num_draws, seed),
        classes=class_trends(fixed, outcomes.labels, class_ratio, num_draws, seed),
        adaptive=[_setting(result) for result in adaptive],
        label_names=evaluation.info.label_names,
        num_draws=num_draws,
    )


def _paired(lines: Sequence[Entry], num_draws: int, seed: int) -> list[PairedDifference]:
    found = {(line.method, line.keep_ratio): line for line in lines}
    pairs = [
        (line, found[other, line.keep_ratio])
        for line in lines
        for other in (("random", "lite") if line.method == "lite++" else ("random",))
        if (other, line.keep_ratio) in found and other != line.method
    ]
    if not pairs:
        return []
    gaps = np.stack([a.top1.mean(axis=1) - b.top1.mean(axis=1) for a, b in pairs], axis=1)
    bounds: npt.NDArray[np.float64] = interval(resampled_means(gaps, num_draws, seed))
    return [
        PairedDifference(
            method=a.method,
            keep_ratio=a.keep_ratio,
            against=b.method,
            difference=float(gaps[:, i].mean()),
            low=float(bounds[0, i]),
            high=float(bounds[1, i]),
        )
        for i, (a, b) in enumerate(pairs)
    ]


def _setting(result: AdaptiveResult) -> AdaptiveSetting:
    return AdaptiveSetting(
        base_ratio=result.entry.keep_ratio,
        small_ratio=result.small_ratio,
        confidence_ratio=result.confidence_ratio,
        share_small=result.share_small,
        thresholds=result.thresholds,
    )


def _no_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _no_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_no_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value
