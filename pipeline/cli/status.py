"""`lite-pipeline status`: what a store holds, how far it is, and whether it can be right."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from pipeline.cli import options, output
from pipeline.cli.table import Column, echo_table

if TYPE_CHECKING:
    from pipeline.store.accuracy import Accuracy


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(status)


def status(store: options.StorePlace, as_json: options.AsJson = False) -> None:
    """Show what a store holds and how far it is; counts come from its files."""
    from datasets_spec.agreement import Agreement
    from pipeline.store.accuracy import measure_accuracy
    from pipeline.store.reader import PENDING, open_store

    opened = open_store(store)
    summary = opened.summary()
    config = opened.config
    shards = len(opened.shards())
    done = opened.num_clips - summary[PENDING]
    accuracy = measure_accuracy(opened)
    if as_json:
        warning = None if accuracy is None else accuracy.warning(opened.label_names)
        facts = {
            "store": str(opened.root),
            "complete": not summary[PENDING],
            "clips": {"total": opened.num_clips, "done": done, **summary},
            "padded": opened.num_padded(),
            "shards": {"total": opened.num_shards, "committed": shards},
            "fingerprint": config.fingerprint(),
            "config": config.to_dict(),
            "token_grid": list(opened.grid),
            "accuracy": None if accuracy is None else accuracy.to_dict() | {"warning": warning},
        }
        output.echo_json(facts)
        return
    share = 100 * done / opened.num_clips
    facts = {
        "store": str(opened.root),
        "dataset": f"{config.dataset}, split {config.split}",
        "oracle": "; ".join(
            f"{name.method} of the {name.target} class at {name.layer}" for name in config.oracles
        ),
        "backbone": f"{config.backbone}, {config.precision}",
        "classes": Agreement(config.class_agreement).meaning if config.class_agreement else "-",
        "clips": f"{config.num_segments}x{config.num_crops} views, {config.sampling} frames, "
        f"decoder {config.decoder}",
        "tokens": "{}x{}x{} a clip".format(*opened.grid),
        "done": f"{shards} of {opened.num_shards} shards, {done} of {opened.num_clips} clips "
        f"({share:.0f} %)",
    }
    echo_table([Column(""), Column("")], [*facts.items()])
    counts = [(name, str(count)) for name, count in summary.items()]
    echo_table([Column(""), Column("", right=True)], counts, indent=2)
    echo_padded(opened.num_padded())
    echo_accuracy(accuracy, opened.label_names)
    if summary[PENDING]:
        output.echo("not complete: run the same build-oracle again, it goes on where it stopped")


def echo_padded(num_padded: int) -> None:
    """Warn of clips that repeat frames; nothing where there are none."""
    if num_padded:
        output.echo(
            f"WARNING: {num_padded} clips are of videos with fewer frames than a clip takes, so "
            "that some repeat (`padded` in the clips table); how long a video is may give its "
            "class away",
            err=True,
        )


def echo_accuracy(accuracy: Accuracy | None, names: list[str]) -> None:
    """Print how well the stored predictions agree with the labels, and what is wrong if not."""
    if accuracy is None:
        return
    output.echo(
        f"the backbone's top-1 {accuracy.top1:.1%}, top-5 {accuracy.top5:.1%} of "
        f"{accuracy.num_clips} clips (chance: top-1 {accuracy.chance:.1%})"
    )
    warning = accuracy.warning(names)
    if warning is not None:
        output.echo(f"WARNING: {warning}", err=True)
