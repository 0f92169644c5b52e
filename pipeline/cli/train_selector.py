"""`lite-pipeline train-selector`: the token selector, from a store alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli import options, output
from pipeline.cli.table import Column, echo_table

if TYPE_CHECKING:
    from collections.abc import Callable

    from selector.training.files import TrainResult
    from selector.training.metrics import RankingMetrics
    from selector.training.train import TrainProgress


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(train_selector)


def train_selector(
    store: Annotated[str, typer.Option(help="Folder or URL of an oracle store.")],
    out: Annotated[Path, typer.Option(help="Folder for the selector; resumes what is there.")],
    oracle: options.StoreOracle = None,
    scores_from: Annotated[
        str | None,
        typer.Option(
            help="Store of another backbone on the same clips and token grid: its scores are "
            "learnt, --oracle is one of its oracles, and the selector is --store's backbone's."
        ),
    ] = None,
    arch: Annotated[
        str, typer.Option(help="mlp (the paper's), mlp4, mlp5, global or transformer.")
    ] = "mlp",
    layers: Annotated[
        int | None,
        typer.Option(
            help="Fully connected layers (mlp, default 3), 3-D convolutions (global, 2) or "
            "blocks (transformer, 1)."
        ),
    ] = None,
    hidden: Annotated[
        int | None, typer.Option(help="Hidden channels; default a third of the embedding's.")
    ] = None,
    clean: Annotated[
        str, typer.Option(help="Clean the target: none, or edges, peaks, sharpen with commas.")
    ] = "none",
    epochs: Annotated[int, typer.Option(help="Passes over the training clips at most.")] = 20,
    patience: Annotated[
        int, typer.Option(help="Stop after so many epochs without a better one (--select-by).")
    ] = 4,
    lr: Annotated[float, typer.Option(help="Peak learning rate of the cosine schedule.")] = 3e-3,
    batch_tokens: Annotated[int, typer.Option(help="Tokens per step, in whole clips.")] = 8192,
    held_out: Annotated[
        float, typer.Option(help="Share of the videos never trained on and judged at the end.")
    ] = 0.1,
    select_by: Annotated[
        str,
        typer.Option(
            help="What chooses the epoch: the held-out loss, or the accuracy of the backbone on "
            "held-out clips with the selector's tokens (needs the checkpoint, no videos)."
        ),
    ] = "loss",
    select_ratio: Annotated[float, typer.Option(help="Keep ratio of that accuracy.")] = 0.3,
    seed: Annotated[int, typer.Option(help="Of the initial weights and of the shuffling.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto.")] = "auto",
    allow_unfinished: Annotated[
        bool,
        typer.Option(
            "--allow-unfinished", help="Train from the finished shards of an unfinished store."
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Train the token selector to predict the oracle's score from patch embeddings."""
    from pipeline import open_store
    from selector.training.config import TrainConfig
    from selector.training.targets import parse_cleaning
    from selector.training.train import train_selector as run

    config = TrainConfig(
        arch=arch,
        num_layers=layers,
        width=hidden,
        clean=parse_cleaning(clean),
        epochs=epochs,
        patience=patience,
        learning_rate=lr,
        batch_tokens=batch_tokens,
        held_out=held_out,
        select_by=select_by,
        select_ratio=select_ratio,
        seed=seed,
    )
    options.require_writable_folder(out)
    on_progress, close = _progress()
    try:
        result = run(
            open_store(store),
            out,
            config,
            device=device,
            allow_unfinished=allow_unfinished,
            oracle=oracle,
            scores_from=None if scores_from is None else open_store(scores_from),
            on_progress=on_progress,
        )
    finally:
        close()
    if as_json:
        output.echo_json(result.to_dict())
    else:
        _echo_report(result, out)


def _progress() -> tuple[Callable[[TrainProgress], None], Callable[[], None]]:
    """What shows a training's progress on stderr, epoch by epoch, and what ends it."""
    epoch = 0
    line = None

    def show(now: TrainProgress) -> None:
        nonlocal epoch, line
        if now.epoch != epoch:
            close()
            loss = "" if now.held_out_loss is None else f", held-out loss {now.held_out_loss:.4f}"
            output.note(f"epoch {now.epoch} of at most {now.epochs}{loss}")
            epoch = now.epoch
            line = output.progress(now.clips_total, now.clips_done)
        assert line is not None
        line.add(now.clips_done - line.done)

    def close() -> None:
        if line is not None:
            line.close()

    return show, close


def _echo_report(result: TrainResult, out: Path) -> None:
    shape = result.selector
    gmacs = result.macs_per_token * shape.grid.num_tokens / 1e9
    judged = result.methods["selector"].num_clips
    left_out = f"{result.num_failed} failed, {result.num_degenerate} without a positive cam"
    if result.num_missing:
        left_out += f", {result.num_missing} not built yet"
    output.echo(f"selector in {out}")
    output.echo_prose(
        f"{shape.arch}, {shape.num_layers} layers of {shape.width}, "
        f"{result.macs_per_token / 1e6:.3f} MMACs per token, {gmacs:.3f} GMACs per clip; trained "
        f"on {result.num_train} clips (left out: {left_out}), epoch {result.best_epoch} of "
        f"{result.num_epochs} is the best by {_criterion(result)}"
    )
    _echo_scores_from(result)
    output.echo()
    output.echo(f"on {judged} of {result.num_held_out} held-out clips:")
    _echo_metrics(result.methods)


def _echo_scores_from(result: TrainResult) -> None:
    origin, videos = result.selector.scores_from, result.videos
    if origin is None or videos is None:
        return
    output.echo_prose(
        f"scores: {origin.oracle} of {origin.backbone}, for the {videos.num_both} videos that both "
        f"stores have ({videos.num_only_here} only in --store are left out, "
        f"{videos.num_only_there} only in --scores-from). The table says how well these scores are "
        "predicted from --store's embeddings, not what they are worth to its backbone: evaluate "
        "says that"
    )


def _criterion(result: TrainResult) -> str:
    if result.selector.chosen_by is None:
        return "held-out loss"
    accuracy = result.history[result.best_epoch - 1]["accuracy"]
    return f"{result.selector.chosen_by} of the tokens ({100 * accuracy:.1f} % on held-out clips)"


def _echo_metrics(methods: dict[str, RankingMetrics]) -> None:
    columns = ("", "BCE", "Spearman")
    echo_table(
        [Column(title, right=bool(title)) for title in columns],
        [(name, f"{found.bce:.4f}", f"{found.spearman:.3f}") for name, found in methods.items()],
    )
    ratios = list(methods["selector"].recall)
    rows: list[str | list[str]] = []
    for title, field in (("recall, %", "recall"), ("oracle mass kept, %", "mass")):
        rows.append(title)
        for name, found in methods.items():
            rows.append([name, *(f"{100 * getattr(found, field)[ratio]:.1f}" for ratio in ratios)])
    shares = [Column(f"{ratio:.0%}", right=True) for ratio in ratios]
    echo_table([Column("keeping"), *shares], rows)
