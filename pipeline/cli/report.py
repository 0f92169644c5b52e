"""`lite-pipeline report`: a store and its evaluations as one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli import options, output


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(report)


def report(
    store: Annotated[str, typer.Option(help="Folder or URL of an oracle store.")],
    out: Annotated[Path, typer.Option(help="The page to write, an .html file.")],
    evaluation: Annotated[
        list[str] | None,
        typer.Option("--eval", help="Folder of an evaluation to show; repeat for several."),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(help="Exported model, whose kept tokens the film strips show."),
    ] = None,
    data_root: Annotated[
        Path | None,
        typer.Option(help="Folder of the store's videos, for film strips; none without it."),
    ] = None,
    adaptation: Annotated[
        Path | None,
        typer.Option(
            help="Folder of benchmarks/adaptation_matrix.py, whose rows become heat maps."
        ),
    ] = None,
    oracle: options.StoreOracle = None,
    clip: Annotated[
        list[int] | None,
        typer.Option(help="Also a film strip of the clip with this clip_id; repeat for several."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the clips that are shown by chance.")] = 0,
) -> None:
    """Write one page about token values, accuracy and cost, which opens without a network."""
    from pipeline import open_store
    from pipeline.errors import ConfigError

    if out.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"{out} must end in .html")
    options.require_drawing("jinja2")
    options.require_writable_file(out)
    from pipeline.store.root import Root
    from selector.deploy.model import LiteModel
    from selector.evaluation.files import Evaluation
    from selector.report.contents import sections
    from selector.report.page import render

    opened = open_store(store)
    with output.counted("clips") as on_clips, output.counted("shards read") as on_progress:
        parts = sections(
            opened,
            [Evaluation(folder) for folder in evaluation or ()],
            data_root=None if data_root is None else str(data_root),
            model=None if model is None else LiteModel.from_pretrained(model),
            oracle=oracle,
            matrix=None if adaptation is None else str(adaptation),
            seed=seed,
            asked_clips=clip or (),
            model_folder=None if model is None else str(model),
            on_progress=on_progress,
            on_clips=on_clips,
        )
    title = f"Token values: {opened.config.dataset}"
    Root(out.absolute().parent).put(out.name, render(title, parts).encode())
    output.echo(f"{out} ({out.stat().st_size / 1e6:.1f} MB)")
