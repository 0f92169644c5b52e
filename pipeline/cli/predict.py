"""`lite-pipeline predict`: what is in a video, and what finding out cost."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli import options, output
from pipeline.config import DECODERS, PRECISIONS, require_one_of
from pipeline.errors import ConfigError, DecodeError, printable

if TYPE_CHECKING:
    from selector.deploy.predict import Prediction


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(predict)


def predict(
    places: Annotated[
        list[str],
        typer.Argument(help="Video files, or folders of them.", metavar="VIDEO..."),
    ],
    model: Annotated[
        str | None,
        typer.Option(help="Folder that train-selector or export-lite wrote, or a hub id."),
    ] = None,
    method: options.MethodName = None,
    keep_ratio: Annotated[
        float | None,
        typer.Option(help="Share of the tokens to keep; by default the model's. 1 keeps all."),
    ] = None,
    spread: options.Spread = None,
    adaptive: Annotated[
        bool, typer.Option("--adaptive", help="Let the calibrated rule set each clip's budget.")
    ] = False,
    top: Annotated[int, typer.Option(min=1, help="Classes to show.")] = 5,
    views: Annotated[
        str, typer.Option(help="Temporal segments x spatial crops; their mean decides.")
    ] = "1x1",
    sampling: Annotated[
        str | None, typer.Option(help="`uniform` or `stride:N`; by default the model's.")
    ] = None,
    backbone: options.ModelBackbone = None,
    save_mask: Annotated[
        Path | None,
        typer.Option(help="Draw the kept tokens of the first view: .png (all frames) or .mp4."),
    ] = None,
    decoder: Annotated[str, typer.Option(help=f"One of {', '.join(DECODERS)}.")] = "pyav",
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto.")] = "auto",
    precision: Annotated[
        str | None,
        typer.Option(help=f"One of {', '.join(PRECISIONS)}; by default the model's."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a list, one item a video.")] = (
        False
    ),
) -> None:
    """Name what is in videos, from the tokens that matter; exit code 1 if any video failed."""
    if precision is not None:
        require_one_of("precision", precision, PRECISIONS)
    if adaptive and keep_ratio is not None:
        raise ConfigError("give either --keep-ratio or --adaptive, not both")
    from pipeline.clips.views import list_views, parse_views
    from pipeline.decode import DecodePool
    from selector.deploy.overlay import check_overlay_path, save_overlay
    from selector.deploy.predict import list_videos, predict_videos, to_json
    from selector.training.train import resolve_device

    videos = list_videos(places)
    if save_mask is not None:
        if len(videos) != 1:
            raise ConfigError(
                f"--save-mask draws one video, got {len(videos)}: give them one by one"
            )
        options.require_writable_file(save_mask)
        check_overlay_path(save_mask)
    wanted = list_views(*parse_views(views))
    lite = options.load_lite(
        model,
        backbone,
        method,
        device=str(resolve_device(device)),
        precision=precision,
        spread=spread,
    )
    shown: list[dict[str, object]] = []
    failed = 0
    with DecodePool(num_workers=1) as pool:
        results = predict_videos(
            lite, videos, pool, keep_ratio=keep_ratio, adaptive=adaptive or None, views=wanted,
            sampling=sampling, decoder=decoder, top=top,
        )  # fmt: skip
        for path, result in zip(videos, results, strict=True):
            failed += isinstance(result, DecodeError)
            if as_json:
                shown.append(to_json(path, result))
            elif isinstance(result, DecodeError):
                output.echo(f"error: {path}: {result}", err=True)
            else:
                output.echo_lines(_describe(path, result))
            if save_mask is not None and not isinstance(result, DecodeError):
                save_overlay(save_mask, result.frames, result.kept)
    if as_json:
        output.echo_json(shown)
    if failed:
        output.echo(f"{failed} of {len(videos)} videos failed", err=True)
        raise typer.Exit(1)


def _describe(path: str, result: Prediction) -> str:
    lines = [
        printable(path) + (" (damaged: the decoder reported errors)" if result.damaged else "")
    ]
    lines += [f"  {100 * p:5.1f} %  {printable(label)}" for _, label, p in result.top]
    num_views = len(result.kept_tokens)
    kept, num = sum(result.kept_tokens), num_views * result.num_tokens
    cost = f"{result.gmacs:.3g} of {result.full_gmacs:.3g} GMACs"
    share = f"{100 * result.gmacs / result.full_gmacs:.0f} %"
    over = "" if num_views == 1 else f" over {num_views} views"
    lines.append(f"  kept {kept} of {num} tokens{over}, {cost} ({share})")
    if result.confidence is not None:
        sure = ", ".join(f"{value:.2f}" for value in result.confidence)
        lines.append(f"  confidence {sure}")
    return "\n".join(lines)
