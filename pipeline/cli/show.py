"""`lite-pipeline show`: oracle maps of single clips, over their frames."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli import options, output
from pipeline.errors import ConfigError, printable


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(show)


def show(
    store: options.StorePlace,
    out: Annotated[Path, typer.Option(help="Folder for one PNG a clip.")],
    clip: Annotated[list[int] | None, typer.Option(help="Its clip_id; repeat for several.")] = None,
    class_name: Annotated[
        str | None, typer.Option("--class", help="The first clips of this class.")
    ] = None,
    worst: Annotated[
        int | None,
        typer.Option(min=1, help="So many, whose true class the model finds least probable."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Clips of --class at most.")] = 10,
    data_root: Annotated[
        str | None, typer.Option(help="Folder of the store's videos; without it, the maps alone.")
    ] = None,
    oracle: options.StoreOracle = None,
) -> None:
    """Draw oracle maps of a store: frames, map, and the tokens that it would keep."""
    from pipeline import open_store
    from pipeline.errors import DecodeError
    from selector.analysis.videos import Videos
    from selector.report.choosing import clips_by_number, clips_of_class, without_map, worst_clips

    if sum(given is not None for given in (clip or None, class_name, worst)) != 1:
        raise ConfigError("say which clips: one of --clip ID, --class NAME, --worst 10")
    options.require_drawing()
    options.require_writable_folder(out)
    opened = open_store(store)
    if clip:
        chosen = clips_by_number(opened, clip)
    elif class_name is not None:
        chosen = clips_of_class(opened, class_name, limit)
    else:
        assert worst is not None
        chosen = worst_clips(opened, worst)

    if not clip:
        for status, num in without_map(opened, class_name).items():
            output.note(f"not drawn, as they have no map: {num} clips ({status})")
    if worst is not None and len(chosen) < worst:
        output.note(f"{worst} were asked for, and {len(chosen)} clips have a map and a label")

    from selector.deploy.mask_files import save_picture
    from selector.deploy.mask_picture import Panel, draw_clip
    from selector.report.strips import bare_strip, strip

    videos = None if data_root is None else Videos(opened, data_root)
    failed = 0
    for number, why in chosen.items():
        try:
            if videos is None:
                shown = bare_strip(opened, number, why, oracle)
            else:
                shown = strip(opened, number, why, videos, oracle=oracle)
        except DecodeError as error:
            output.echo(f"clip {number}: {error}", err=True)
            failed += 1
            continue
        panels = [
            Panel(name=name, frames=frames, scale=(0.0, 1.0) if name == shown.heat else None)
            for name, frames in shown.pictures.items()
        ]
        path = out / f"clip-{number:06d}.png"
        heading = [printable(line) for line in shown.title.split("; ")]
        save_picture(path, draw_clip(heading, panels, len(panels[0].frames)))
        output.echo(f"{path}: {shown.title}")
    if failed:
        raise typer.Exit(1)
