"""`lite-pipeline adapt-backbone`: a few minutes of training with a method's own masks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli import options, output
from pipeline.cli.options import HOW, WHAT
from pipeline.cli.table import Column, echo_table
from pipeline.config import ClipConfig, RunConfig

if TYPE_CHECKING:
    from collections.abc import Callable

    from selector.adaptation.files import AdaptResult

DEFAULT_LIMIT = 4000


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(adapt_backbone)


def adapt_backbone(
    data_root: Annotated[
        str,
        typer.Option(help="Folder of the dataset's annotations and videos.", rich_help_panel=WHAT),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the model; resumes what is there.")],
    dataset: options.Dataset = "synthetic",
    split: Annotated[
        str | None,
        typer.Option(help="Split to train on; by default `train`.", rich_help_panel=WHAT),
    ] = None,
    backbone: Annotated[
        str | None,
        typer.Option(
            help="Checkpoint to adapt; by default the selector's, or `synthetic` (shipped).",
            rich_help_panel=WHAT,
        ),
    ] = None,
    revision: options.Revision = None,
    accept_classes: options.AcceptClasses = False,
    method: Annotated[
        str,
        typer.Option(
            help="Whose masks to train with: any of `lite-pipeline methods` that a model can use.",
            rich_help_panel=WHAT,
        ),
    ] = "lite",
    selector: Annotated[
        str | None,
        typer.Option(
            metavar="DIR", help="Trained selector, for methods of one.", rich_help_panel=WHAT
        ),
    ] = None,
    keep_ratio_range: Annotated[
        str,
        typer.Option(
            metavar="LOW,HIGH", help="Keep ratios that steps draw from.", rich_help_panel=WHAT
        ),
    ] = "0.1,0.7",
    full_share: Annotated[
        float, typer.Option(help="Share of the steps with all tokens.", rich_help_panel=WHAT)
    ] = 0.1,
    distill: Annotated[
        bool,
        typer.Option(
            "--distill",
            help="Learn the full model's answers in place of labels, which are not needed then.",
            rich_help_panel=WHAT,
        ),
    ] = False,
    minutes: Annotated[
        float,
        typer.Option(
            help="Bound on training and validating, once the videos are decoded.",
            rich_help_panel=WHAT,
        ),
    ] = 5.0,
    steps: Annotated[
        int | None,
        typer.Option(help="Optimiser steps, in place of --minutes.", rich_help_panel=WHAT),
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Clips a step.", rich_help_panel=WHAT)] = 64,
    lr: Annotated[
        float | None,
        typer.Option(
            help="Peak learning rate. Default: 1e-3 for a width of 96 (the shipped one), less in "
            "proportion for a wider one.",
            rich_help_panel=WHAT,
        ),
    ] = None,
    lora: Annotated[
        int | None,
        typer.Option(
            metavar="RANK",
            help="Train low-rank adapters (peft), which the weights take in at the end, in place "
            "of all of blocks and head.",
            rich_help_panel=WHAT,
        ),
    ] = None,
    held_out: Annotated[
        float,
        typer.Option(help="Share of the videos that judge and never train.", rich_help_panel=WHAT),
    ] = 0.1,
    patience: Annotated[
        int,
        typer.Option(
            help="Stop after so many validations (of up to 8) without a better held-out loss.",
            rich_help_panel=WHAT,
        ),
    ] = 4,
    limit: Annotated[
        int,
        typer.Option(
            help="Take an even sample of this many videos; all are decoded to disk.",
            rich_help_panel=WHAT,
        ),
    ] = DEFAULT_LIMIT,
    sampling: options.SamplingRule = None,
    decoder: options.Decoder = ClipConfig.decoder,
    precision: Annotated[
        str | None,
        typer.Option(
            help="fp32 or bf16, of the training; by default bf16 on a GPU.", rich_help_panel=WHAT
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(help="Of batches, ratios and random masks.", rich_help_panel=WHAT)
    ] = 0,
    keep_ratio: Annotated[
        float | None,
        typer.Option(help="Budget of the model unless told otherwise; default mid-range."),
    ] = None,
    decode_workers: Annotated[
        int, typer.Option(min=0, help="Decoder processes.", rich_help_panel=HOW)
    ] = RunConfig.decode_workers,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.", rich_help_panel=HOW)] = 2,
    device: Annotated[
        str, typer.Option(help="cpu, cuda, or auto.", rich_help_panel=HOW)
    ] = RunConfig.device,
    as_json: options.AsJson = False,
) -> None:
    """Adapt a backbone to the tokens that a method leaves it, and save both as one model."""
    from selector.adaptation.config import AdaptConfig, parse_range
    from selector.adaptation.run import adapt
    from selector.training.files import read_config
    from selector.training.train import resolve_device

    if backbone is None:
        backbone = "synthetic"
        if selector is not None:
            learnt = read_config(selector)
            backbone, revision = learnt.backbone, revision or learnt.revision
    low, high = parse_range(keep_ratio_range)
    on_gpu = resolve_device(device).type == "cuda"
    asked = AdaptConfig(
        dataset=dataset,
        split=split or "",
        limit=limit,
        backbone=backbone,
        revision=revision,
        decoder=decoder,
        sampling=sampling or "",
        num_segments=1,
        num_crops=1,
        precision=precision or ("bf16" if on_gpu else "fp32"),
        method=method,
        selector=selector,
        keep_low=low,
        keep_high=high,
        full_share=full_share,
        distill=distill,
        steps=steps,
        minutes=minutes,
        batch_size=batch_size,
        learning_rate=lr,
        lora_rank=lora,
        held_out=held_out,
        patience=patience,
        seed=seed,
    )
    run = RunConfig(
        data_root=data_root,
        decode_workers=decode_workers,
        threads_per_worker=threads,
        device=device,
        accept_classes=accept_classes,
    )
    options.require_writable_folder(out)
    on_step, close = steps_line()
    try:
        result = adapt(
            asked,
            out,
            run,
            keep_ratio=keep_ratio,
            decoding=lambda: output.counted("videos"),
            on_step=on_step,
        )
    finally:
        close()
    if as_json:
        output.echo_json(result.to_dict())
    else:
        _echo(result, out, method)


def steps_line() -> tuple[Callable[[int, int], None], Callable[[], None]]:
    """What shows the steps on stderr, and what ends it."""
    line = None

    def show(done: int, total: int) -> None:
        nonlocal line
        if line is None:
            line = output.progress(total, done - 1, "steps")
        line.add(done - line.done)

    def close() -> None:
        if line is not None:
            line.close()

    return show, close


def _echo(result: AdaptResult, out: Path, method: str) -> None:
    by_label = result.after[1.0].top1 is not None

    def shown(values: object) -> str:
        value = getattr(values, "top1" if by_label else "agreement")
        return f"{100 * value:.1f}"

    output.echo(f"model in {out}")
    ended = {"steps": "all its steps", "patience": "no better loss", "time": "its time was over"}
    output.echo_prose(
        f"{method}: {result.num_steps} steps on {result.num_train} videos in {result.seconds:.0f} "
        f"s ({ended[result.stopped]}); step {result.best_step} is the best on "
        f"{result.num_held_out} held-out ones"
    )
    if not result.best_step:
        output.echo_prose(
            "No step was better than none: the backbone is unchanged. Try a lower --lr, or more "
            "--minutes."
        )
    output.echo()
    output.echo(f"{'top-1' if by_label else 'agreement with the full model'} on them, %:")
    rows = [
        (f"{ratio:.0%}", shown(result.before[ratio]), shown(result.after[ratio]))
        for ratio in result.after
    ]
    titles = ("keeping", "before", "adapted")
    echo_table([Column(title, right=True) for title in titles], rows)
    field = "top1" if by_label else "agreement"
    lost = 100 * (getattr(result.before[1.0], field) - getattr(result.after[1.0], field))
    output.echo_prose(
        f"With all tokens, where nothing is dropped, adapting "
        f"{'costs' if lost > 0 else 'gains'} {abs(lost):.1f} points. These videos may be among "
        "those that the checkpoint was trained on: `lite-pipeline evaluate --backbone "
        f"{out}/backbone` measures on a validation split."
    )
