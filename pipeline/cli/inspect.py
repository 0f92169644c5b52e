"""`status`, `verify` and `failures`: how far a store is, whether it is sound, what failed."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

Where = Annotated[str, typer.Option("--store", help="Folder or URL of an oracle store.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(status)
    app.command()(verify)
    app.command()(failures)


def status(store: Where, as_json: AsJson = False) -> None:
    """Show what a store holds and how far it is; counts come from its files."""
    from pipeline.store.reader import PENDING, open_store

    opened = open_store(store)
    summary = opened.summary()
    config = opened.config
    shards = len(opened.shards())
    done = opened.num_clips - summary[PENDING]
    if as_json:
        facts = {
            "store": str(opened.root),
            "complete": not summary[PENDING],
            "clips": {"total": opened.num_clips, "done": done, **summary},
            "shards": {"total": opened.num_shards, "committed": shards},
            "fingerprint": config.fingerprint(),
            "config": config.to_dict(),
            "token_grid": list(opened.grid),
        }
        typer.echo(json.dumps(facts, indent=2))
        return
    t, h, w = opened.grid
    share = 100 * done / opened.num_clips
    typer.echo(f"{opened.root}: {config.dataset}/{config.split}")
    typer.echo(
        f"  {config.method} of the {config.target} class at {config.layer}, "
        f"{config.num_segments}x{config.num_crops} view(s), {t}x{h}x{w} tokens"
    )
    typer.echo(f"  backbone {config.backbone}, decoder {config.decoder}, {config.precision}")
    typer.echo(
        f"  {shards} of {opened.num_shards} shards, {done} of {opened.num_clips} clips", nl=False
    )
    typer.echo(f" ({share:.0f} %)")
    width = max(len(name) for name in summary)
    for name, count in summary.items():
        typer.echo(f"    {name:<{width}}  {count}")
    if summary[PENDING]:
        typer.echo("  not complete: run the same build-oracle again, it goes on where it stopped")


def verify(store: Where, as_json: AsJson = False) -> None:
    """Recount and re-check everything in a store; exits with 1 if something is wrong."""
    from pipeline.shards.progress import Progress
    from pipeline.store.verify import verify_store

    progress: Progress | None = None

    def on_shard(done: int, total: int) -> None:
        nonlocal progress
        if progress is None:
            progress = Progress(total=total, unit="shards", stream=sys.stderr)
        progress.add(done - progress.done)

    problems = verify_store(store, None if as_json else on_shard)
    if progress is not None:
        progress.close()
    if as_json:
        rows = [{"where": p.where, "what": p.what, "remedy": p.remedy} for p in problems]
        typer.echo(json.dumps({"sound": not problems, "problems": rows}, indent=2))
    else:
        for problem in problems:
            typer.echo(str(problem))
        typer.echo(f"{len(problems)} problem(s)" if problems else "sound and complete")
    if problems:
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

    columns = ["clip_id", "video_id", "path", "segment", "crop", "status", "error"]
    wanted = only or [status.value for status in ClipStatus if status != ClipStatus.OK]
    frame = open_store(store).clips(columns=columns, status=wanted)
    if as_json:
        typer.echo(json.dumps(frame.to_dict(orient="records"), indent=2))
        return
    for row in frame.itertuples(index=False):
        view = f" view {row.segment},{row.crop}" if row.segment or row.crop else ""
        typer.echo(f"{row.status}  {row.path}{view}: {row.error}")
    counts = frame["status"].value_counts()
    total = ", ".join(f"{count} {name}" for name, count in counts.items())
    typer.echo(f"{len(frame)} failed" + (f" ({total})" if total else ""))
