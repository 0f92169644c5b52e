"""`lite-pipeline serve`: a model behind HTTP, with a page to drop a video on."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Annotated

import typer

from pipeline.cli import output
from pipeline.config import PRECISIONS, RunConfig, require_one_of
from pipeline.errors import ConfigError

_BOUNDS = "Bounds"


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(serve)


def serve(
    model: Annotated[
        str, typer.Option(help="Folder that accelerate or export-lite wrote, or a hub id.")
    ],
    host: Annotated[
        str, typer.Option(help="Address to listen at. There is no authentication.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen at; 0 takes any.")] = 8000,
    keep_ratio: Annotated[
        float | None,
        typer.Option(help="Share of the tokens to keep; by default the model's. 1 keeps all."),
    ] = None,
    adaptive: Annotated[
        bool, typer.Option("--adaptive", help="Let the calibrated rule set each clip's budget.")
    ] = False,
    top: Annotated[int, typer.Option(min=1, help="Classes to report.")] = 5,
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto.")] = "auto",
    precision: Annotated[
        str | None,
        typer.Option(help=f"One of {', '.join(PRECISIONS)}; by default the model's."),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads of the model; by default all cores.")
    ] = None,
    decode_workers: Annotated[int, typer.Option(min=1, help="Decoder processes.")] = 2,
    spare: Annotated[
        bool,
        typer.Option(
            "--spare",
            help="Load the model twice, so that the second copy answers at once when the first "
            "one's process is killed; it takes as much memory.",
        ),
    ] = False,
    max_batch: Annotated[
        int, typer.Option(help="Videos in one forward pass.", rich_help_panel=_BOUNDS)
    ] = 8,
    max_requests: Annotated[
        int,
        typer.Option(help="Videos in work at once; more get a 503.", rich_help_panel=_BOUNDS),
    ] = 32,
    max_upload: Annotated[
        float, typer.Option(help="Largest upload, in MB.", rich_help_panel=_BOUNDS)
    ] = 100.0,
    max_frames: Annotated[
        int, typer.Option(help="Longest video, in frames.", rich_help_panel=_BOUNDS)
    ] = RunConfig.max_frames,
    max_pixels: Annotated[
        int, typer.Option(help="Largest frame, in pixels.", rich_help_panel=_BOUNDS)
    ] = RunConfig.max_pixels,
    deadline: Annotated[
        float, typer.Option(help="Seconds a request may take.", rich_help_panel=_BOUNDS)
    ] = 60.0,
) -> None:
    """Answer POST /predict with a video's classes and their cost; a page for browsers at /."""
    if precision is not None:
        require_one_of("precision", precision, PRECISIONS)
    if adaptive and keep_ratio is not None:
        raise ConfigError("give either --keep-ratio or --adaptive, not both")
    needed = {
        "fastapi": "fastapi",
        "uvicorn": "uvicorn",
        "python_multipart": "python-multipart",
        "prometheus_client": "prometheus-client",
    }
    if missing := [name for module, name in needed.items() if find_spec(module) is None]:
        raise ConfigError(f"serving needs {', '.join(missing)}: pip install 'lite-pipeline[serve]'")
    from selector.serving.limits import Limits
    from selector.serving.messages import ModelOptions
    from selector.serving.server import serve as run

    limits = Limits(
        max_requests=max_requests,
        max_upload_bytes=int(max_upload * 1000**2),
        max_frames=max_frames,
        max_pixels=max_pixels,
        deadline_s=deadline,
        max_batch=max_batch,
    )
    options = ModelOptions(
        model=model,
        keep_ratio=keep_ratio,
        adaptive=adaptive or None,
        top=top,
        device=device,
        precision=precision,
        threads=threads,
    )
    run(
        options,
        limits,
        host=host,
        port=port,
        decode_workers=decode_workers,
        keep_spare=spare,
        announce=lambda url: output.echo(f"{model} answers at {url}; Ctrl-C ends it"),
    )
