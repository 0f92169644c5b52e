"""What `lite-pipeline accelerate` does, step by step; each step is an ordinary command's function.

Every step resumes by itself, in a folder of its own below MODEL/work.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pipeline.cli import output
from pipeline.config import OracleConfig
from pipeline.errors import ConfigError, LiteError

if TYPE_CHECKING:
    from pipeline.backbones import Backbone
    from pipeline.cli.accelerate_inputs import Task
    from selector.deploy.choosing import Choice, Difference, Wanted
    from selector.deploy.config import LiteConfig
    from selector.evaluation.files import Evaluation
    from selector.evaluation.report.table import Entry
    from selector.statistics import Groups

LOSS_RATIOS = (0.9, 0.8, 0.65, 0.5, 0.4, 0.3, 0.2)
"""Keep ratios tried where a loss is allowed; a speed-up has its own."""


def build_oracle(task: Task) -> Path:
    """The oracle of the videos to learn from.

    Raises:
        ConfigError: shards were given up, or the predictions hardly know the labels.
        LiteError: see `pipeline.oracle.build.build`.
    """
    from pipeline.oracle.build import build

    store = task.work / "store"
    target = "predicted" if task.unlabelled else OracleConfig.target
    asked = OracleConfig(**task.clips(task.split), target=target, shard_size=64)
    result = build(asked, str(store), task.run, progress_stream=output.progress_stream())
    if not result.complete:
        raise ConfigError(
            f"the oracle is not complete: {len(result.given_up)} shards were given up; the same "
            f"command tries again, and `lite-pipeline failures --store {store}` says why"
        )
    accuracy = result.accuracy
    if accuracy is not None and accuracy.near_chance and not task.unlabelled:
        raise ConfigError(
            f"the backbone is right about {accuracy.top1:.1%} of {accuracy.num_clips} clips, no "
            f"more than chance ({accuracy.chance:.1%}): are the labels this checkpoint's?"
        )
    return store


def train(task: Task, store: Path) -> Path:
    """The selector.

    Raises:
        LiteError: see `selector.training.train.train_selector`.
    """
    from pipeline import open_store
    from selector.training.config import TrainConfig
    from selector.training.train import train_selector

    out = task.work / "selector"
    config = TrainConfig(held_out=task.held_out)
    train_selector(open_store(str(store)), out, config, device=task.run.device)
    return out


def keep_ratios(backbone: Backbone, selector: Path | None, wanted: Wanted) -> tuple[float, ...]:
    """What is evaluated: for a speed-up the ratio that reaches it, and two for adaptive budgets.

    Args:
        backbone: whose cost counts.
        selector: what ranks the tokens, which costs too; None counts no such thing.
        wanted: the goal.

    Raises:
        ConfigError: one token costs more than the speed-up leaves.
    """
    if wanted.speedup is None:
        return (1.0, *LOSS_RATIOS)
    from selector.methods.cost import CostModel
    from selector.training.files import load_selector

    ranks = None if selector is None else load_selector(selector)
    costs, num_tokens = CostModel(backbone, ranks), backbone.grid.num_tokens
    most = costs.at(num_tokens).total / wanted.speedup
    if costs.at(1).total > most:
        raise ConfigError(
            f"{wanted.speedup:g} times cheaper is out of reach: with one token a view still costs "
            f"1/{costs.at(num_tokens).total / costs.at(1).total:.1f} of the full model"
        )
    low, high = 1, num_tokens  # of tokens: one that is cheap enough, one that is not
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if costs.at(middle).total <= most else (low, middle)
    nums = sorted({num_tokens, min(num_tokens, round(1.4 * low)), low, max(1, round(0.6 * low))})
    return tuple(num / num_tokens for num in reversed(nums))


def usable(names: str, backbone: Backbone, selector: Path) -> tuple[str, ...]:
    """Those of the methods that serve this backbone; the others are named in a note.

    Raises:
        ConfigError: none does, or a name is unknown.
    """
    from selector.methods.names import LITE, split_names
    from selector.methods.registry import Parts, make_method, parse_method

    parts, found = Parts(backbone, selectors={LITE: str(selector)}), []
    for name in split_names(names):
        parsed = parse_method(name)
        try:
            method = make_method(parsed, parts)
        except ConfigError as error:
            output.note(f"left out: {error}")
            continue
        if method.unseen is not None:
            output.note(f"left out: a model in use does not see what {name} needs")
            continue
        if method.by_content:
            output.note(f"left out: {name} takes no budget, each clip's content decides")
            continue
        found.append(str(parsed))
    if not found:
        raise ConfigError(f"none of {names} serves this backbone")
    return tuple(found)


def evaluate(
    task: Task, selector: Path, methods: tuple[str, ...], ratios: tuple[float, ...], name: str
) -> Evaluation:
    """All candidates on the videos to judge by.

    Raises:
        ConfigError: shards were given up.
        LiteError: see `selector.evaluation.run.evaluate`.
    """
    from selector.evaluation.config import EvalConfig
    from selector.evaluation.run import evaluate as run_evaluation
    from selector.methods.names import LITE
    from selector.methods.registry import parse_method

    needs = any(parse_method(method).selected_by is not None for method in methods)
    asked = EvalConfig(
        **task.clips(task.judge_split),
        methods=methods,
        selectors={LITE: str(selector)} if needs else {},
        keep_ratios=ratios,
        num_seeds=1,
    )
    result = run_evaluation(
        asked,
        str(task.work / name),
        task.run,
        progress_stream=output.progress_stream(),
        judges_all=task.judge_split != task.split,  # else `judged` leaves out what was learnt from
    )
    if result.given_up:
        raise ConfigError(
            f"the evaluation is not complete: {len(result.given_up)} shards were given up "
            f"({result.given_up[0].reason}); the same command tries again"
        )
    return result.evaluation


class Judged(NamedTuple):
    """An evaluation's lines over videos that nothing was learnt from."""

    lines: list[Entry]
    videos: list[str]
    groups: Groups | None
    """(V,) of the videos; None where each is its own."""


def judged(task: Task, evaluation: Evaluation) -> Judged:
    """What an evaluation says of the videos to judge by."""
    from selector.evaluation.report.table import entries
    from selector.evaluation.results import read_outcomes
    from selector.training.split import is_held_out

    outcomes, config = read_outcomes(evaluation), evaluation.config
    rates = evaluation.timing().clips_per_s(config)
    lines = entries(outcomes, evaluation.info, rates)
    videos, groups = outcomes.video_ids.tolist(), outcomes.groups
    if task.judge_split == task.split:
        kept = [i for i, unit in enumerate(outcomes.units) if is_held_out(unit, task.held_out)]
        lines = [replace(line, top1=line.top1[kept], top5=line.top5[kept]) for line in lines]
        videos = [videos[i] for i in kept]
        groups = None if groups is None else groups[kept]
    return Judged(lines, videos, groups)


def decide(task: Task, evaluation: Evaluation, wanted: Wanted) -> Choice:
    """The choice, over videos that nothing was learnt from.

    Raises:
        ConfigError: see `choose`.
    """
    from selector.deploy.choosing import choose
    from selector.evaluation.config import FULL
    from selector.training.split import halves

    lines, videos, groups = judged(task, evaluation)
    full = next(line for line in lines if line.method == FULL)
    others = [line for line in lines if line is not full]
    return choose(others, full, wanted, halves(videos if groups is None else groups), groups)


def adaptive(
    line: Entry,
    full: Entry,
    against_full: Difference,
    wanted: Wanted,
    config: LiteConfig,
    model: Path,
    evaluation: Evaluation,
) -> LiteConfig | None:
    """The model with a budget for each clip, where that is shown to beat a fixed one of its cost.

    Args:
        line: a fixed budget of the selector alone.
        full: the full model.
        against_full: the line's top-1 minus that one's.
        wanted: the goal, which the adaptive budget must meet too.
        config: the model's with the fixed budget.
        model: folder of the selector, or of the model that was adapted to it.
        evaluation: that has the line.
    """
    from selector.budgets.calibrate import BudgetRequest, calibrate
    from selector.budgets.pick import Goal
    from selector.budgets.rows import calibration_rows

    ratios = [ratio for ratio in evaluation.config.keep_ratios if ratio < 1]
    assert line.keep_ratio is not None
    at = ratios.index(line.keep_ratio)
    smaller = ratios[at + 1 :]
    if not smaller:
        return None
    assert full.gmacs is not None
    if wanted.speedup is not None:
        base, goal = ratios[max(0, at - 1)], Goal(target_gmacs=full.gmacs / wanted.speedup)
    else:
        assert wanted.max_loss is not None
        left = wanted.max_loss + against_full.mean
        base, goal = ratios[at], Goal(max_loss=max(0.0, left))
    small = smaller[0]
    for asked in (
        BudgetRequest(
            goal=goal, base_ratio=base, small_ratio=small, confidence=f"backbone:{small}"
        ),
        BudgetRequest(goal=goal, base_ratio=base, kind="mass"),
    ):
        try:
            found = calibrate(calibration_rows(model, evaluation, config), asked)
        except LiteError as error:
            output.note(f"no adaptive budget ({asked.kind}): {error}")
            continue
        if found.held_out.gain_low > 0 and not found.warnings:
            return replace(found.config, adaptive=True)
        output.note(
            f"no adaptive budget ({asked.kind}): on the other half "
            f"{100 * found.held_out.gain:+.2f} points "
            f"[{100 * found.held_out.gain_low:+.2f}, {100 * found.held_out.gain_high:+.2f}] "
            "against fixed budgets of its cost"
        )
    return None


def chosen_config(task: Task, line: Entry, selector: Path) -> LiteConfig:
    """How a model must be configured to do what a line of the comparison did.

    The comparison's `lite-spread` is `lite` with a spread.
    """
    from selector.deploy.config import LiteConfig
    from selector.methods.names import LITE, LITE_SPREAD
    from selector.methods.registry import parse_method
    from selector.methods.spread import DEFAULT_SPREAD
    from selector.training.files import read_config

    assert line.keep_ratio is not None
    parsed = parse_method(line.method)
    is_spread = parsed.name == LITE_SPREAD
    learnt = read_config(selector).trained_on
    assert learnt is not None
    return LiteConfig(
        method=str(replace(parsed, name=LITE) if is_spread else parsed),
        spread=DEFAULT_SPREAD if is_spread else 0.0,
        keep_ratio=line.keep_ratio,
        precision=task.precision,
        sampling=learnt.sampling,
    )


def export(task: Task, config: LiteConfig, selector: Path, out: Path) -> None:
    """Write the model; `out` is then one, or as it was.

    Raises:
        LiteError: see `LiteModel.save_pretrained`.
    """
    from pipeline.backbones import load_backbone
    from selector.deploy.model import LiteModel
    from selector.training.files import load_selector

    backbone = load_backbone(task.backbone, task.revision, precision=task.precision)
    trained = load_selector(selector) if config.needs_selector else None
    model = LiteModel(backbone, trained, config, task.backbone, task.revision)
    model.save_pretrained(out)
