"""`lite-pipeline predict`: what is in a video, and what finding out cost."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli import options, output, predict_masks, predict_windows
from pipeline.config import DECODERS, PRECISIONS, require_one_of
from pipeline.errors import ConfigError, DecodeError


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(predict)


def predict(
    places: Annotated[
        list[str] | None,
        typer.Argument(help="Video files, or folders of them.", metavar="VIDEO..."),
    ] = None,
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
        typer.Option(
            help="Draw frames, predicted values and kept tokens of the first view: a .png, an "
            ".mp4, or a folder for a file of each video."
        ),
    ] = None,
    mask_format: Annotated[
        str | None, typer.Option(help="png or mp4, where --save-mask is a folder; by default png.")
    ] = None,
    label: Annotated[
        str | None,
        typer.Option(help="Class of the videos; --save-mask also draws the oracle's map of it."),
    ] = None,
    label_by_folder: Annotated[
        bool,
        typer.Option("--label-by-folder", help="Each video's class is the name of its folder."),
    ] = False,
    decoder: Annotated[str, typer.Option(help=f"One of {', '.join(DECODERS)}.")] = "pyav",
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto.")] = "auto",
    precision: Annotated[
        str | None,
        typer.Option(help=f"One of {', '.join(PRECISIONS)}; by default the model's."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a list, one item a video.")] = (
        False
    ),
    window: Annotated[
        str | None,
        typer.Option(
            help="Slide windows of so many frames (64f) or seconds (2.5) over long videos, and "
            "answer each."
        ),
    ] = None,
    stride: Annotated[
        str | None,
        typer.Option(help="From one window's start to the next's; by default the window's length."),
    ] = None,
    live: Annotated[
        str | None,
        typer.Option(
            help="Watch a live source in place of files, a window (by default 2 s) at a time: "
            "rtsp://..., udp://..., /dev/video0."
        ),
    ] = None,
    jsonl: Annotated[
        str | None,
        typer.Option(help="File, or - for standard output: a line of JSON a video, or window."),
    ] = None,
) -> None:
    """Name what is in videos, from the tokens that matter; exit code 1 if any video failed."""
    if precision is not None:
        require_one_of("precision", precision, PRECISIONS)
    if adaptive and keep_ratio is not None:
        raise ConfigError("give either --keep-ratio or --adaptive, not both")
    from pipeline.clips.views import list_views, parse_views
    from pipeline.decode import DecodePool
    from selector.deploy.predict import list_videos, predict_videos, to_json, to_text
    from selector.training.train import resolve_device

    if as_json and jsonl is not None:
        raise ConfigError("give either --json or --jsonl, not both")
    windows = predict_windows.asked(places or [], window, stride, live, plain={"--json": as_json})
    beside = {"--mask-format": mask_format, "--label": label, "--label-by-folder": label_by_folder}
    for name, given in beside.items():
        if given and save_mask is None:
            raise ConfigError(f"{name} belongs to --save-mask")
    if save_mask is not None and live is not None:
        raise ConfigError("--save-mask draws files: a live source has no end, and does not wait")
    videos = [live] if live is not None else list_videos(places or [])
    masks = None
    if save_mask is not None:
        masks = predict_masks.Masks(
            save_mask, videos, mask_format, folders=places or [], windows=windows is not None,
            label=label, label_by_folder=label_by_folder,
        )  # fmt: skip
    wanted = list_views(*parse_views(views))
    lite = options.load_lite(
        model,
        backbone,
        method,
        device=str(resolve_device(device)),
        precision=precision,
        spread=spread,
    )
    if masks is not None:
        masks.use(lite)
    if windows is not None:
        predict_windows.predict(
            lite, videos, windows, keep_ratio=keep_ratio, adaptive=adaptive or None, views=wanted,
            sampling=sampling, decoder=decoder, top=top, jsonl=jsonl, masks=masks,
        )  # fmt: skip
        return
    shown: list[dict[str, object]] = []
    failed = 0
    with DecodePool(num_workers=1) as pool, output.json_lines(jsonl) as lines:
        results = predict_videos(
            lite, videos, pool, keep_ratio=keep_ratio, adaptive=adaptive or None, views=wanted,
            sampling=sampling, decoder=decoder, top=top,
        )  # fmt: skip
        for path, result in zip(videos, results, strict=True):
            failed += isinstance(result, DecodeError)
            drawn = None if masks is None else masks.draw(path, result)
            answer = to_json(path, result) | ({} if drawn is None else {"mask": drawn})
            lines.add(answer)
            if as_json:
                shown.append(answer)
            elif isinstance(result, DecodeError):
                output.echo(f"error: {path}: {result}", err=True)
            elif jsonl != "-":
                output.echo_lines(to_text(path, result))
                if drawn is not None:
                    output.echo(f"  mask {drawn}")
    if as_json:
        output.echo_json(shown)
    if failed:
        output.echo(f"{failed} of {len(videos)} videos failed", err=True)
    if masks is not None and masks.failed:
        output.echo(f"masks that are not written: {masks.failed}", err=True)
    if failed or (masks is not None and masks.failed):
        raise typer.Exit(1)
