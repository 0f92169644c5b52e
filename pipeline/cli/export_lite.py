"""`lite-pipeline export-lite`: a trained selector and its backbone in one folder, or on the hub."""

from __future__ import annotations

from dataclasses import replace
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
    evaluation: Annotated[
        str | None,
        typer.Option(
            "--eval",
            help="Finished evaluation with `lite` and `lite-spread` of this model: it decides on "
            "the spread.",
        ),
    ] = None,
    onnx: Annotated[
        Path | None,
        typer.Option(help="File (.onnx) for a model with a fixed budget, without PyTorch."),
    ] = None,
    keep_ratio: Annotated[
        float | None, typer.Option(help="Of --onnx: share of the tokens; by default the model's.")
    ] = None,
    licence: options.License = None,
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
    if evaluation is not None:
        spread = _better_spread(model, evaluation, spread, keep_ratio)
    lite = options.load_lite(model, backbone, method, spread=spread)
    if licence is not None:
        lite.config = replace(lite.config, license=licence)
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


def _better_spread(
    model: str | None, evaluation: str, spread: float | None, keep_ratio: float | None
) -> float:
    if spread is not None:
        raise ConfigError("give either --spread or --eval, which chooses it, not both")
    if model is None or not Path(model).is_dir():
        raise ConfigError("--eval chooses the spread of a model in a folder: give its --model DIR")
    from selector.deploy.choosing import better_spread
    from selector.evaluation.files import Evaluation

    found = better_spread(Path(model), Evaluation(evaluation), keep_ratio)
    mean, low, high = (100 * value for value in found.gain)
    output.echo_prose(
        f"spread {found.better:g}: at keep ratio {found.keep_ratio:g} a sample by value (spread 2) "
        f"is {mean:+.1f} points [{low:+.1f}, {high:+.1f}] against the best tokens (spread 0) on "
        f"{found.num_videos} videos"
        + ("; they do not tell the two apart" if low <= 0 <= high else "")
    )
    return found.better
