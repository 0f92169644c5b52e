"""Everything an evaluation says, from its committed rows alone."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.errors import ConfigError, NoOutcomesError
from pipeline.strict_json import json_values
from selector.budgets.adaptive import (
    MAX_LOSS,
    AdaptiveGoal,
    AdaptiveSetting,
    adaptive_results,
)
from selector.evaluation.files import Evaluation
from selector.evaluation.learnt import num_learnt, warning
from selector.evaluation.report.classes import ANALYSIS_RATIO, ClassTrend, class_trends
from selector.evaluation.report.paired import PairedDifference, others, paired, pairs
from selector.evaluation.report.steering import Steering, steering
from selector.evaluation.report.table import TableRow, entries, make_table
from selector.evaluation.results import Outcomes, read_outcomes
from selector.statistics import LEVEL, NUM_DRAWS


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
    num_groups: int | None
    """Groups that these are of, which every interval is over; None where the dataset says none."""
    num_failed: int
    """Videos left out because some method could do no view of theirs."""
    num_padded: int
    """Videos that are too short for a clip, so that some frames repeat."""
    num_learnt: dict[str, int]
    """Method to how many of the videos its selector may have learnt from; only those above 0."""
    failed_by: dict[str, int]
    """Method to how many of those the full model did and it did not."""
    without: tuple[str, ...]
    """Methods that were left out of this summary."""
    num_missing: int
    """Videos still to be evaluated."""
    table: list[TableRow]
    thresholds: dict[str, float]
    """Methods without a budget to the change, in grey levels, above which they keep a token."""
    lite_methods: tuple[str, ...]
    """Methods of the table that rank by a trained selector."""
    against: tuple[str, ...]
    """What every fixed budget is compared with."""
    paired: list[PairedDifference]
    """Fixed budgets against `against`, further selectors against the first, and every adaptive
    budget against its base and against the random mixture."""
    steering: list[Steering]
    """What the oracles' controls did."""
    classes: list[ClassTrend]
    goal: AdaptiveGoal
    adaptive: list[AdaptiveSetting]
    out_of_reach: list[str]
    """Adaptive budgets that cannot meet the goal, and why."""
    label_names: tuple[str, ...]
    num_draws: int
    level: float = LEVEL

    @property
    def over(self) -> str:
        """What every interval is over, as a sentence has it."""
        groups = self.num_groups
        return "videos" if groups is None else f"{groups} groups of the videos"

    @property
    def num_units(self) -> int:
        """How many of those there are."""
        return self.num_videos if self.num_groups is None else self.num_groups

    @property
    def cautions(self) -> list[str]:
        """What to know before any number is believed."""
        learnt, missing = warning(self.num_learnt, self.num_videos), self.num_missing
        found = [f"UNFINISHED: {missing} videos are still missing"] if missing else []
        return [*found, f"LEARNT FROM: {learnt}"] if learnt else found

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; NaN becomes None."""
        plain: dict[str, Any] = json_values(asdict(self))
        return plain


def summarise(
    evaluation: Evaluation,
    *,
    class_ratio: float = ANALYSIS_RATIO,
    goal: AdaptiveGoal | None = None,
    without: Collection[str] = (),
    against: Sequence[str] | None = None,
    num_draws: int = NUM_DRAWS,
    seed: int = 0,
) -> Summary:
    """Read the rows and compute the tables.

    Args:
        evaluation: finished or not; what is missing is counted.
        class_ratio: keep ratio of the per-class analysis.
        goal: what adaptive budgets are picked for; None: a loss of at most `MAX_LOSS`.
        without: methods to leave out, so that videos which only they cannot do count.
        against: what every fixed budget is compared with; None as `paired.others` has it.
        num_draws: bootstrap resamples.
        seed: of the resampling.

    Raises:
        NoOutcomesError: nothing is committed, or no video worked.
        StoreError: a file is damaged.
        ConfigError: the goal is out of range, the class ratio was not evaluated, or `without` or
            `against` names a method that is not there.
    """
    known = [method for method in evaluation.config.methods if method not in without]
    compared = others(against, known)
    goal = goal or AdaptiveGoal(max_loss=MAX_LOSS)
    ratios = [ratio for ratio in evaluation.config.keep_ratios if ratio < 1]
    if class_ratio not in (ANALYSIS_RATIO, *ratios):  # else its table would be missing in silence
        raise ConfigError(
            f"the class ratio {class_ratio:g} was not evaluated; {evaluation.root} has keep ratios "
            f"{', '.join(f'{ratio:g}' for ratio in ratios) or 'of all tokens alone'}"
        )
    outcomes, config = read_outcomes(evaluation, without), evaluation.config
    if not len(outcomes.video_ids):
        raise NoOutcomesError(_nothing_left(evaluation, outcomes))
    fixed = entries(outcomes, evaluation.info, evaluation.timing().clips_per_s(config))
    lite_methods = tuple(m for m in config.lite_methods if m not in without)
    adaptive, out_of_reach = adaptive_results(outcomes, evaluation.info, goal)
    lines = [*fixed, *(result.entry for result in adaptive)]
    groups = outcomes.groups
    return Summary(
        out=str(evaluation.root),
        dataset=config.dataset,
        split=config.split,
        backbone=config.backbone,
        views=f"{config.num_segments}x{config.num_crops}",
        num_videos=len(outcomes.video_ids),
        num_groups=None if groups is None else len(set(groups.tolist())),
        num_failed=outcomes.num_failed,
        num_padded=int(outcomes.padded.sum()),
        num_learnt={
            method: count
            for method, count in num_learnt(config, outcomes.video_ids, groups).items()
            if method in known
        },
        failed_by=outcomes.failed_by,
        without=tuple(sorted(without)),
        num_missing=outcomes.num_missing,
        lite_methods=lite_methods,
        against=compared,
        table=make_table(lines, num_draws, seed, groups),
        thresholds={
            condition.method: setting["grey_levels"]
            for condition, setting in zip(config.conditions, evaluation.info.settings, strict=True)
            if condition.keep_ratio is None and condition.method in known
        },
        paired=paired(pairs(fixed, compared, lite_methods, adaptive), num_draws, seed, groups),
        steering=[s for s in steering(evaluation, set(outcomes.video_ids)) if s.method in known],
        classes=class_trends(fixed, outcomes.labels, class_ratio, num_draws, seed, groups),
        goal=goal,
        adaptive=[result.setting for result in adaptive],
        out_of_reach=out_of_reach,
        label_names=evaluation.info.label_names,
        num_draws=num_draws,
    )


def _nothing_left(evaluation: Evaluation, outcomes: Outcomes) -> str:
    message = (
        f"{evaluation.root}: none of the {outcomes.num_failed} evaluated videos worked under every "
        f"method ({outcomes.num_missing} are missing); see the column `error` of its results"
    )
    if outcomes.failed_by:
        options = " ".join(f"--without '{method}'" for method in outcomes.failed_by)
        message += f", or leave out what failed: {options}"
    return message
