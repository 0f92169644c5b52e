"""`lite-pipeline calibrate`: gives a model its adaptive budget (LITE++)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli import options, output
from pipeline.cli.table import Column, echo_table
from pipeline.config import RunConfig
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from selector.budgets.calibrate import Calibrated, HeldOut, Judge
    from selector.evaluation.files import Evaluation


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(calibrate)


def calibrate(
    model: Annotated[
        Path, typer.Option(help="Folder of the model, which gets the result in lite.json.")
    ],
    evaluation: Annotated[
        str,
        typer.Option(
            "--eval", help="Folder or URL of a finished evaluation that has the model's selector."
        ),
    ],
    max_loss: Annotated[
        float | None,
        typer.Option(help="Points of top-1 (0.6 = 0.6 %) that may be lost against --keep-ratio."),
    ] = None,
    certainty: Annotated[
        float,
        typer.Option(
            help="That other videos lose no more than --max-loss, a share in (0.5, 1): the less, "
            "the cheaper."
        ),
    ] = 0.95,
    target_gflops: Annotated[
        float | None, typer.Option(help="Mean GMACs per view, at most, everything included.")
    ] = None,
    keep_ratio: Annotated[
        float | None,
        typer.Option(
            help="The base budget, which the adaptive one starts from; by default the model's."
        ),
    ] = None,
    budget: Annotated[
        str,
        typer.Option(
            help="threshold (the paper's: easy and hopeless clips get the small budget) or mass "
            "(the fewest tokens that hold a share of the predicted value)."
        ),
    ] = "threshold",
    small_ratio: Annotated[
        float | None, typer.Option(help="The small budget; by default 0.3, or 0.2 from 0.3.")
    ] = None,
    confidence: Annotated[
        str | None,
        typer.Option(
            help="backbone:RATIO, movinet:A0@FILE, hf:FOLDER_OR_ID or torchvision:NAME@WEIGHTS; "
            "by default the backbone on the fewest evaluated tokens. With the small ratio it is a "
            "cascade: its pass is the small budget's answer too."
        ),
    ] = None,
    data_root: Annotated[
        str | None,
        typer.Option(
            help="Folder of the evaluation's videos; only another model than the backbone needs it."
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Clips per forward pass of those.")] = 16,
    decode_workers: Annotated[int, typer.Option(min=1, help="Decoder processes for those.")] = 1,
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto, for those.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Pick the adaptive budget that meets a cost or an accuracy on an evaluation's rows."""
    if (max_loss is None) == (target_gflops is None):
        raise ConfigError(
            "say what the budget must meet, one of the two: --max-loss POINTS (the cheapest that "
            "loses no more) or --target-gflops GFLOPS (the most accurate that costs no more)"
        )
    if not model.is_dir():
        raise ConfigError(f"{model} is no folder: export-lite copies a model of the hub into one")
    options.require_writable_folder(model)
    from selector.budgets.calibrate import BudgetRequest
    from selector.budgets.calibrate import calibrate as pick_budget
    from selector.budgets.pick import Goal
    from selector.budgets.rows import calibration_rows
    from selector.evaluation.files import Evaluation

    wanted = BudgetRequest(
        goal=Goal(
            target_gmacs=target_gflops,
            max_loss=None if max_loss is None else max_loss / 100,
            certainty=certainty,
        ),
        kind=budget,
        base_ratio=keep_ratio,
        small_ratio=small_ratio,
        confidence=confidence,
    )
    rows = calibration_rows(model, Evaluation(evaluation))
    judge = None
    if data_root is not None:
        run = RunConfig(
            data_root=data_root,
            batch_size=batch_size,
            decode_workers=decode_workers,
            device=device,
        )
        judge = _judge(rows.evaluation, run)
    found = pick_budget(rows, wanted, judge)
    found.config.save(model)
    shown = found.to_dict() | {"budget": found.config.to_dict()["budget"]}
    if as_json:
        output.echo_json(shown)
    else:
        _echo_report(found, model)


def _judge(evaluation: Evaluation, run: RunConfig) -> Judge:
    """Asks a second model about videos, with a progress line on stderr."""
    from selector.budgets.levels import Ints, SecondOpinion
    from selector.budgets.second_opinion import ask_second_model

    def ask(name: str, clip_ids: Ints) -> SecondOpinion:
        line = output.progress(len(clip_ids))
        try:
            return ask_second_model(name, evaluation, clip_ids, run, line.add)
        finally:
            line.close()

    return ask


def _echo_report(found: Calibrated, model: Path) -> None:
    given = ", ".join(f"{100 * share:.0f} % get {num}" for num, share in found.shares.items())
    result, held_out = found.outcome, found.held_out
    counts = {"not evaluated": found.num_failed, "trained on": found.num_trained_on}
    left = ", ".join(f"{count} {why}" for why, count in counts.items() if count)
    left_out = f" (left out: {left})" if left else ""
    output.echo(str(found.config.budget))
    output.echo_prose(
        f"on {result.num_rows} clips of {found.num_videos} videos{left_out}: {given} tokens"
    )
    rows = [
        ("fixed budget", result.base_gmacs, result.base_accuracy),
        ("adaptive, on the videos it was picked on", result.gmacs, result.accuracy),
        ("adaptive, picked on the other half", held_out.gmacs, held_out.accuracy),
    ]
    echo_table(
        [Column(""), Column("GFLOPs", right=True), Column("top-1 %", right=True)],
        [(name, f"{gmacs:.4g}", f"{100 * top1:.2f}") for name, gmacs, top1 in rows],
        indent=2,
    )
    output.echo_prose(
        f"The last line is what to expect: {_span(held_out, 'difference')} against the fixed "
        f"budget, {_span(held_out, 'gain')} against fixed ratios of its own cost, mixed at random."
    )
    for warning in found.warnings:
        output.echo_prose(f"warning: {warning}")
    output.echo(f"saved in {model / 'lite.json'}: `lite-pipeline predict --adaptive` uses it")


def _span(found: HeldOut, name: str) -> str:
    value, low, high = (100 * getattr(found, name + end) for end in ("", "_low", "_high"))
    return f"{value:+.2f} points [{low:+.2f}, {high:+.2f}]"
