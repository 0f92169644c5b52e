"""`lite-pipeline import-checkpoint`: VideoMAE's own `.pth` files as a folder for `--backbone`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli import options, output


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("import-checkpoint")(import_checkpoint)


def import_checkpoint(
    file: Annotated[Path, typer.Argument(help="A fine-tuned .pth of VideoMAE or VideoMAE V2.")],
    out: Annotated[Path, typer.Option(help="Folder for the checkpoint; made here.")],
    labels: Annotated[
        Path | None,
        typer.Option(help='Class names: JSON ({"name": id} or a list), or one a line.'),
    ] = None,
    like: Annotated[
        str | None,
        typer.Option(help="Checkpoint of the same sizes, for heads, frames, pixels and names."),
    ] = None,
    heads: Annotated[int | None, typer.Option(min=1, help="Attention heads.")] = None,
    frames: Annotated[int | None, typer.Option(min=1, help="Frames of a clip.")] = None,
    pixels: Annotated[int | None, typer.Option(min=1, help="Side of the input.")] = None,
    entry: Annotated[
        str | None, typer.Option(help="Which of several weights in the file, such as model_ema.")
    ] = None,
    fresh_positions: Annotated[
        bool,
        typer.Option(
            "--fresh-positions",
            help="Other sizes than 16 x 224: it is a VideoMAE, whose positions are computed anew.",
        ),
    ] = False,
) -> None:
    """Convert VideoMAE's or VideoMAE V2's own file, key by key, for --backbone."""
    from datasets_spec.class_names import read_class_file
    from pipeline.backbones import mcg_nju

    options.require_writable_folder(out)
    known = mcg_nju.Known(
        entry=entry,
        like=like,
        heads=heads,
        frames=frames,
        pixels=pixels,
        labels=read_class_file(labels) if labels is not None else None,
        fresh_positions=fresh_positions,
    )
    done = mcg_nju.import_checkpoint(file, out, known)
    backbone = done.backbone
    named = "named" if backbone.label_names else "without names (--labels FILE)"
    if done.assumed:
        output.note(
            f"assumed, as published, because the file does not say: {', '.join(done.assumed)}"
        )
    output.echo(
        f"checkpoint in {out}: {backbone.num_layers} blocks of {backbone.hidden_size} channels, "
        f"{backbone.num_frames} frames of {backbone.image_size} pixels, {backbone.num_classes} "
        f"classes {named}, read out from {'the first token' if backbone.prefix else 'the mean'}"
    )
    output.echo(f"use it with --backbone {out}")
