"""`lite-pipeline failures`: the clips that failed, and why."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.cli import options, output
from pipeline.cli.table import Column, echo_table


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(failures)


def failures(
    store: options.StorePlace,
    only: Annotated[
        list[str] | None, typer.Option("--status", help="Only this status; may be repeated.")
    ] = None,
    as_json: options.AsJson = False,
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
