"""`lite-pipeline export-lite`: a trained selector and its backbone in one folder, or on the hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli import options, output
from pipeline.errors import ConfigError


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("export-lite")(export_lite)


def export_lite(
    model: Annotated[
        str | None, typer.Option(help="Folder that train-selector wrote, or a hub id.")
    ] = None,
    method: options.MethodName = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the complete model.")] = None,
    push: Annotated[
        str | None, typer.Option(help="Hub repository to upload to, `owner/name`.")
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="Make a new one private.")] = False,
    backbone: options.ModelBackbone = None,
    spread: options.Spread = None,
    onnx: Annotated[
        Path | None,
        typer.Option(help="File (.onnx) for a model with a fixed budget, without PyTorch."),
    ] = None,
    keep_ratio: Annotated[
        float | None, typer.Option(help="Of --onnx: share of the tokens; by default the model's.")
    ] = None,
    without_backbone: Annotated[
        bool,
        typer.Option("--without-backbone", help="Only name the checkpoint, do not copy its files."),
    ] = False,
) -> None:
    """Join selector, budgets and backbone, so that the folder works wherever it is copied."""
    if out is None and push is None and onnx is None:
        raise ConfigError("give --out FOLDER, --push OWNER/NAME, --onnx FILE, or several")
    if keep_ratio is not None and onnx is None:
        raise ConfigError("--keep-ratio belongs to --onnx; a folder's model takes any")
    if out is not None:
        options.require_writable_folder(out)
    if onnx is not None:
        options.require_writable_file(onnx)
    lite = options.load_lite(model, backbone, method, spread=spread)
    if out is not None:
        lite.save_pretrained(out, with_backbone=not without_backbone)
        output.echo(f"model in {out}: use it with `lite-pipeline predict VIDEO --model {out}`")
    if onnx is not None:
        from selector.deploy.onnx_export import export_onnx

        export_onnx(lite, onnx, keep_ratio)
        output.echo(f"ONNX model in {onnx}")
    if push is not None:
        commit = lite.push_to_hub(push, private=private or None, with_backbone=not without_backbone)
        output.echo(f"uploaded: {commit}")
