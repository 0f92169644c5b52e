"""`lite-pipeline accelerate`: from a fine-tuned video transformer to a cheaper one, in one command.

Each step is an ordinary command's function (`pipeline.cli.accelerate_steps`); what is measured
decides, and the model is written last, whole or not at all.
"""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli import options, output
from pipeline.cli.accelerate_adapt import adapt as adapt_chosen
from pipeline.cli.accelerate_adapt import parse_minutes, points, told
from pipeline.cli.options import WHAT
from pipeline.config import RunConfig
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from pipeline.cli.accelerate_adapt import Adapted
    from pipeline.cli.accelerate_inputs import Task
    from selector.deploy.choosing import Choice, Wanted
    from selector.deploy.config import LiteConfig
    from selector.evaluation.report.table import Entry

CANDIDATES = "lite,lite-spread,uniform,evs,tome,lite-spread+tome"
MANY = 2000


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(options.with_run_options(accelerate))


def accelerate(
    backbone: Annotated[
        str,
        typer.Option(
            help="Checkpoint folder, hub id, or `synthetic` (shipped).", rich_help_panel=WHAT
        ),
    ],
    data_root: Annotated[
        str, typer.Option(help="Folder of the videos and their labels.", rich_help_panel=WHAT)
    ],
    out: Annotated[
        Path, typer.Option(help="Folder for the model; what it is made from goes into its work/.")
    ],
    dataset: options.Dataset = "folder",
    speedup: Annotated[
        float | None,
        typer.Option(
            help="So many times fewer multiply-accumulates; the most accurate model is taken. "
            "Default: 2, unless a loss is given."
        ),
    ] = None,
    max_loss: Annotated[
        float | None,
        typer.Option(help="Points of top-1 that may be lost; the cheapest model is taken."),
    ] = None,
    adapt: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Train the backbone with the masks for so long (10m, 90s, 0.5h), and keep that "
            "where it is shown to be better. Default: no training.",
        ),
    ] = None,
    unlabelled: Annotated[
        bool,
        typer.Option(
            "--unlabelled",
            help="DATA_ROOT is any folder of videos: the backbone's own predictions are what is "
            "learnt from and judged by.",
        ),
    ] = False,
    split: Annotated[
        str | None, typer.Option(help="To learn from; by default train.", rich_help_panel=WHAT)
    ] = None,
    judge_split: Annotated[
        str | None,
        typer.Option(
            help="To judge by; by default validation, or half of the videos where there is one "
            "split.",
            rich_help_panel=WHAT,
        ),
    ] = None,
    videos: Annotated[
        int, typer.Option(help="Of each split at most, an even sample.", rich_help_panel=WHAT)
    ] = MANY,
    candidates: Annotated[
        str, typer.Option(help="Methods to choose from; see `methods`.", rich_help_panel=WHAT)
    ] = CANDIDATES,
    revision: options.Revision = None,
    accept_classes: options.AcceptClasses = False,
    sampling: options.SamplingRule = None,
    precision: options.Precision = "fp32",
    licence: options.License = None,
    *,
    run: dict[str, Any],
) -> None:
    """Make a checkpoint cheaper: oracle, selector, comparison, choice, export.

    Nothing is retrained, unless --adapt says so. Interrupt it at any time: the same command goes on
    where it stopped.
    """
    if speedup is not None and max_loss is not None:
        raise ConfigError("give either --speedup or --max-loss, not both")
    if unlabelled and (split is not None or judge_split is not None or dataset != "folder"):
        raise ConfigError("--unlabelled takes all videos below --data-root: no dataset, no split")
    from selector.deploy.choosing import Wanted
    from selector.deploy.config import LiteConfig
    from selector.deploy.saving import check_replaceable
    from selector.methods.names import split_names
    from selector.methods.registry import parse_method

    LiteConfig(license=licence)  # one that is none is refused before work
    wanted = (
        Wanted(speedup=2.0 if speedup is None else speedup)
        if max_loss is None
        else Wanted(max_loss=max_loss / 100)
    )
    minutes = None if adapt is None else parse_minutes(adapt)
    run_config = RunConfig(data_root=data_root, accept_classes=accept_classes, **run)
    options.require_writable_folder(out)
    check_replaceable(out)
    for method in split_names(candidates):
        parse_method(method)
    from pipeline.backbones import load_backbone
    from pipeline.cli import accelerate_inputs as inputs
    from pipeline.cli import accelerate_steps as steps

    inputs.check_apart(dataset, data_root, out)
    learnt, judged = (
        ["all", "all"]
        if unlabelled
        else inputs.settle_splits(dataset, data_root, split, judge_split)
    )
    task = inputs.Task(
        backbone=backbone,
        revision=revision,
        dataset=dataset,
        split=learnt,
        judge_split=judged,
        limit=videos,
        precision=precision,
        sampling=sampling or "",
        unlabelled=unlabelled,
        run=run_config,
        work=out / "work",
    )
    loaded = load_backbone(backbone, revision)
    if unlabelled:
        task = inputs.list_unlabelled(task, loaded)
    else:
        task = inputs.in_checkpoint_order(task, loaded)
    ready = inputs.check(task)
    steps.keep_ratios(loaded, None, wanted)  # a goal that nothing reaches is refused before work
    if ready.num_copies:
        output.note(
            f"WARNING: {ready.num_copies} videos have the same content as another, so some that "
            "are judged by may have been learnt from, or have two labels: `lite-pipeline datasets "
            "check` names them"
        )
    output.note(f"1/4 oracle of {task.split}: {ready.num_train} videos to learn from")
    store = steps.build_oracle(task)
    if unlabelled:
        task = inputs.label_by_prediction(task, loaded, store)
    output.note("2/4 selector")
    selector = steps.train(task, store)
    ratios = steps.keep_ratios(loaded, selector, wanted)
    methods = steps.usable(candidates, loaded, selector)
    output.note(f"3/4 {len(methods)} methods on {ready.num_judged} videos of {task.judge_split}")
    name = "evaluation" if wanted.speedup is None else f"evaluation-{wanted.speedup:g}"
    evaluation = steps.evaluate(task, selector, methods, ratios, name)
    choice = steps.decide(task, evaluation, wanted)
    adapted = None
    if minutes is not None:
        output.note(f"adapting the backbone for {minutes:g} minutes, then measuring it")
        adapted = adapt_chosen(task, evaluation, choice, selector, methods, minutes)
    output.note("4/4 export")
    taken = adapted if adapted is not None and adapted.is_better else None
    if taken is None:
        made, folder, judge = task, selector, evaluation
        chosen, against = choice.line, choice.against_full
    else:
        made = replace(task, backbone=str(taken.folder / "backbone"), revision=None)
        folder, judge = taken.folder, taken.evaluation
        chosen, against = taken.line, taken.against_full
    config = steps.chosen_config(task, chosen, selector)
    if config.selects:
        own = steps.adaptive(chosen, choice.full, against, wanted, config, folder, judge)
        config = own or config
    lines = _result(choice, config, task, wanted, adapted)
    measured = {"dataset": evaluation.config.dataset} | _measured(choice, task, lines, taken)
    config = replace(config, measured=measured, license=licence)
    steps.export(made, config, folder, out)
    for line in lines:
        output.echo_prose(line)
    output.echo(f"all of it: lite-pipeline evaluate --out {_quoted(task.work / name)} --table-only")
    output.echo(f"use it:    lite-pipeline predict VIDEO --model {_quoted(out)}")


def _result(
    choice: Choice, config: LiteConfig, task: Task, wanted: Wanted, adapted: Adapted | None
) -> list[str]:
    """What was gained, and what it may cost: the first lines of the result, and the card's."""
    line, full = choice.line, choice.full
    noun = "agreement with the full model" if task.unlabelled else "top-1"
    if adapted is not None and adapted.is_better:
        of = 100 * full.top1.mean()
        return [
            _cost(adapted.line, full),
            f"{noun} {100 * adapted.line.top1.mean():.1f} % of {of:.1f} %, "
            f"{points(adapted.against_full)}, on {adapted.num_videos} videos it did not learn from",
            *told(adapted, choice, noun),
            *_of_each_clip(config, full, noun),
        ]
    top1, of = 100 * line.top1.mean(), 100 * full.top1.mean()
    found = [
        _cost(line, full),
        f"{noun} {top1:.1f} % of {of:.1f} %, {points(choice.against_full)}, on "
        f"{choice.num_videos} videos it did not learn from; as the best of {choice.num_lines} it "
        f"flatters itself: expect {points(choice.expected)}",
    ]
    if wanted.max_loss is not None and choice.expected.low < -wanted.max_loss:
        found.append(
            f"these videos do not show that it loses at most {100 * wanted.max_loss:g} points: it "
            f"may be {-100 * choice.expected.low:.1f}; more videos tell more"
        )
    if choice.next_best is not None:
        other, gain = choice.next_best
        unsure = "" if gain.low > 0 else ", which these videos do not tell apart"
        found.append(f"against the next best, {other.method}: {points(gain)}{unsure}")
    if adapted is not None:
        found += told(adapted, choice, noun)
    return found + _of_each_clip(config, full, noun)


def _of_each_clip(config: LiteConfig, full: Entry, noun: str) -> list[str]:
    """What a budget for each clip does, where the model has one."""
    if not config.adaptive or config.calibration is None:
        return []
    assert full.gmacs is not None
    held = config.calibration["held_out"]
    over_fixed = [held[name] for name in ("gain", "gain_low", "gain_high")]
    return [
        f"by default every clip gets a budget of its own (LITE++): {held['gmacs']:.4g} GMACs a "
        f"view, {full.gmacs / held['gmacs']:.2f} times fewer, {noun} "
        f"{100 * held['accuracy']:.1f} %, {points(over_fixed)} against fixed budgets of that "
        "cost, on the half it was not picked on"
    ]


def _cost(line: Entry, full: Entry) -> str:
    assert line.gmacs is not None
    assert full.gmacs is not None
    rates = ""
    if line.clips_per_s and full.clips_per_s:
        measured = line.clips_per_s / full.clips_per_s
        rates = f"; measured on this machine, {measured:.2f} times the clips a second"
    return (
        f"{line.method} at keep ratio {line.keep_ratio:.3g}: {line.gmacs:.4g} of {full.gmacs:.4g} "
        f"GMACs a view, {full.gmacs / line.gmacs:.2f} times fewer{rates}"
    )


def _measured(
    choice: Choice, task: Task, lines: list[str], taken: Adapted | None
) -> dict[str, Any]:
    """For `lite.json` and the model card; `taken` is the adapted model where that is exported."""
    line, num, against, expected = (
        (choice.line, choice.num_videos, choice.against_full, choice.expected)
        if taken is None
        else (taken.line, taken.num_videos, taken.against_full, taken.against_full)
    )
    found = {
        "split": task.judge_split,
        "num_videos": num,
        "unlabelled": task.unlabelled,
        "method": line.method,
        "keep_ratio": line.keep_ratio,
        "top1": float(line.top1.mean()),
        "full_top1": float(choice.full.top1.mean()),
        "difference": list(against),
        "expected_difference": list(expected),
        "gmacs": line.gmacs,
        "full_gmacs": choice.full.gmacs,
        "clips_per_s": line.clips_per_s,
        "full_clips_per_s": choice.full.clips_per_s,
        "card": [f"- {line}" for line in lines],
    }
    if taken is not None:
        found["adapted"] = {
            "minutes": taken.result.seconds / 60,
            "steps": taken.result.num_steps,
            "gain": list(taken.gain),
            "difference_with_all_tokens": list(taken.price),
        }
    return found


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))
