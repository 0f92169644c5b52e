"""What `lite-pipeline accelerate` trains where a time for it is given, and whether that paid.

The backbone is adapted to the masks of `lite` where that is a candidate, and else to the chosen
method's: where masks were compared, those of `lite` gained the most at a tenth of the tokens, and
no others more at a quarter (docs/adaptation.md). What comes out is
measured on the videos that the choice was measured on, and kept where it is shown to be better.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.cli import output
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from pipeline.cli.accelerate_inputs import Task
    from pipeline.cli.accelerate_steps import Judged
    from selector.adaptation.files import AdaptResult
    from selector.deploy.choosing import Choice, Difference
    from selector.evaluation.files import Evaluation
    from selector.evaluation.report.table import Entry

_MINUTES = {"": 1.0, "m": 1.0, "s": 1 / 60, "h": 60.0}


def parse_minutes(text: str) -> float:
    """Reads `10m`, `90s`, `0.5h`, or a number of minutes.

    Raises:
        ConfigError: it is no time above 0.
    """
    match = re.fullmatch(r"(\d+\.?\d*|\.\d+)\s*([smh]?)", text.strip())
    minutes = 0.0 if match is None else float(match[1]) * _MINUTES[match[2]]
    if not minutes:
        raise ConfigError(f"--adapt takes a time such as 10m, 90s or 0.5h, got {text!r}")
    return minutes


@dataclass(frozen=True, kw_only=True)
class Adapted:
    """A backbone that was adapted to the masks of a method, and what it then does."""

    folder: Path
    """Of the model."""
    result: AdaptResult
    evaluation: Evaluation
    """Of the method on the adapted backbone, at the keep ratios of the choice's."""
    line: Entry
    """Its line at the chosen keep ratio, on the videos of the choice."""
    all_tokens: Entry
    """The adapted backbone with all tokens on them."""
    num_videos: int
    """That both could be measured on."""
    gain: Difference
    """Its top-1 minus that of the choice."""
    against_full: Difference
    """Its top-1 minus that of the full model, which was not adapted."""
    price: Difference
    """The same of the adapted backbone with all tokens."""

    @property
    def is_better(self) -> bool:
        """Whether the videos show that it is better than the choice."""
        return self.gain.low > 0


def adapt(
    task: Task,
    evaluation: Evaluation,
    choice: Choice,
    selector: Path,
    methods: tuple[str, ...],
    minutes: float,
) -> Adapted:
    """Adapt the backbone at the chosen keep ratio, and measure it beside the choice.

    Args:
        task: what was asked for.
        evaluation: what the choice was made on.
        choice: to be beaten.
        selector: folder of the trained selector.
        methods: the candidates.
        minutes: bound on the training and its validations.

    Raises:
        LiteError: see `selector.adaptation.run.adapt` and `accelerate_steps.evaluate`.
    """
    from pipeline.cli import accelerate_steps as steps
    from selector.methods.names import LITE

    method = LITE if LITE in methods else choice.line.method
    ratio = choice.line.keep_ratio
    assert ratio is not None
    name = f"{method.replace('/', '-')}-{ratio:.3g}-{minutes:g}m"
    folder = task.work / f"adapted-{name}"
    result = _train(task, method, ratio, selector, minutes, folder)
    there = replace(task, backbone=str(folder / "backbone"), revision=None)
    ratios = evaluation.config.keep_ratios  # a budget for each clip is picked from several
    measured = steps.evaluate(there, folder, (method,), ratios, f"evaluation-{name}")
    before, after = steps.judged(task, evaluation), steps.judged(there, measured)
    return compare(folder, result, measured, before, choice, after)


def compare(
    folder: Path,
    result: AdaptResult,
    evaluation: Evaluation,
    before: Judged,
    choice: Choice,
    after: Judged,
) -> Adapted:
    """What adapting changed, on the videos that both evaluations could do.

    Args:
        folder: of the adapted model.
        result: how it was adapted.
        evaluation: of the adapted backbone.
        before: what the choice was made on.
        choice: a line of it.
        after: the adapted backbone with all tokens, and with the method.
    """
    from selector.deploy.choosing import difference
    from selector.evaluation.config import FULL

    at = {video: row for row, video in enumerate(before.videos)}
    rows = [row for row, video in enumerate(after.videos) if video in at]
    same = [at[after.videos[row]] for row in rows]
    groups = None if after.groups is None else after.groups[rows]
    lines = [replace(line, top1=line.top1[rows], top5=line.top5[rows]) for line in after.lines]
    all_tokens = next(line for line in lines if line.method == FULL)
    line = next(
        line
        for line in lines
        if line is not all_tokens and line.keep_ratio == choice.line.keep_ratio
    )
    chosen, full, adapted, everything = (
        top1.mean(axis=1)
        for top1 in (choice.line.top1[same], choice.full.top1[same], line.top1, all_tokens.top1)
    )
    return Adapted(
        folder=folder,
        result=result,
        evaluation=evaluation,
        line=line,
        all_tokens=all_tokens,
        num_videos=len(rows),
        gain=difference(adapted - chosen, groups),
        against_full=difference(adapted - full, groups),
        price=difference(everything - full, groups),
    )


def told(adapted: Adapted, choice: Choice, noun: str) -> list[str]:
    """What it came to, and what it costs where no token is dropped."""
    line, result, minutes = adapted.line, adapted.result, adapted.result.seconds / 60
    trained = (
        f"adapted to the masks of {line.method} for {minutes:.1f} minutes ({result.num_steps} "
        f"steps on {result.num_train} videos)"
    )
    change = f"{points(adapted.gain)} against {choice.line.method} without adapting"
    top1 = f"{noun} {100 * line.top1.mean():.1f} %"
    price = (
        f"with all tokens the adapted backbone has {100 * adapted.all_tokens.top1.mean():.1f} % "
        f"of {100 * choice.full.top1.mean():.1f} %, {points(adapted.price)}"
    )
    if not result.best_step:
        return [f"{trained}: no step was better than none, and the backbone stays as it was"]
    if not adapted.is_better:
        return [
            f"{trained}: {top1}, {change}, which {adapted.num_videos} videos do not show to be "
            "better, so nothing that was trained is used"
        ]
    return [f"{trained}: {top1}, {change} on the same videos", price]


def points(found: Sequence[float]) -> str:
    """A difference and its interval, in points."""
    mean, low, high = (100 * value for value in found)
    return f"{mean:+.1f} points [{low:+.1f}, {high:+.1f}]"


def _train(
    task: Task, method: str, ratio: float, selector: Path, minutes: float, folder: Path
) -> AdaptResult:
    from pipeline.cli.adapt_backbone import steps_line
    from selector.adaptation.config import AdaptConfig
    from selector.adaptation.run import adapt as run_adaptation
    from selector.methods.registry import parse_method
    from selector.training.train import resolve_device

    needs = parse_method(method).selected_by is not None
    on_gpu = resolve_device(task.run.device).type == "cuda"
    asked = AdaptConfig(
        **task.clips(task.split) | {"precision": "bf16" if on_gpu else "fp32"},
        method=method,
        selector=str(selector) if needs else None,
        keep_low=ratio,
        keep_high=ratio,
        distill=task.unlabelled,
        minutes=minutes,
        # Of one split, a part judges the choice: it neither trains nor stops the training.
        set_aside=task.held_out if task.judge_split == task.split else 0.0,
    )
    on_step, close = steps_line()
    try:
        return run_adaptation(
            asked,
            folder,
            task.run,
            keep_ratio=ratio,
            decoding=lambda: output.counted("videos"),
            on_step=on_step,
        )
    finally:
        close()
