"""`status`, `verify` and `failures`: how far a store is, whether it is sound, what failed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli import output
from pipeline.cli.table import Column, echo_table

if TYPE_CHECKING:
    from pipeline.store.accuracy import Accuracy

Where = Annotated[str, typer.Option("--store", help="Folder or URL of an oracle store.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(status)
    app.command()(verify)
    app.command()(failures)


def status(store: Where, as_json: AsJson = False) -> None:
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
        "oracle": f"{config.method} of the {config.target} class at {config.layer}",
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
    echo_accuracy(accuracy, opened.label_names)
    if summary[PENDING]:
        output.echo("not complete: run the same build-oracle again, it goes on where it stopped")


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


def verify(store: Where, as_json: AsJson = False) -> None:
    """Recount and re-check everything in a store; exits with 1 if something is wrong."""
    from pipeline.store.verify import verify_store

    with output.counted("shards") as on_shard:
        problems = verify_store(store, on_shard)
    harm = [problem for problem in problems if not problem.harmless]
    notes = [problem for problem in problems if problem.harmless]
    if as_json:
        rows, others = (
            [{"where": p.where, "what": p.what, "remedy": p.remedy} for p in part]
            for part in (harm, notes)
        )
        output.echo_json({"sound": not harm, "problems": rows, "notes": others})
    else:
        for problem in harm:
            output.echo(str(problem))
        for note in notes:
            output.echo(f"note: {note}")
        output.echo(f"{len(harm)} problem(s)" if harm else "sound and complete")
    if harm:
        raise typer.Exit(1)


def failures(
    store: Where,
    only: Annotated[
        list[str] | None, typer.Option("--status", help="Only this status; may be repeated.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the clips that failed, with the reason of each."""
    from pipeline.errors import ClipStatus
    from pipeline.store.reader import open_store

    asked = ["clip_id", "video_id", "path", "segment", "crop", "status", "error"]
    wanted = only or [status.value for status in ClipStatus if status != ClipStatus.OK]
    frame = open_store(store).clips(columns=asked, status=wanted)
    if as_json:
        output.echo_json(frame.to_dict(orient="records"))
        return
    shown = {"status": frame["status"], "video": frame["path"]}
    if frame["segment"].any() or frame["crop"].any():
        shown["view"] = frame["segment"].astype(str) + "," + frame["crop"].astype(str)
    shown["error"] = frame["error"]
    if len(frame):
        echo_table([*map(Column, shown)], [*zip(*shown.values(), strict=True)])
    counts = frame["status"].value_counts()
    total = ", ".join(f"{count} {name}" for name, count in counts.items())
    output.echo(f"{len(frame)} failed" + (f" ({total})" if total else ""))
