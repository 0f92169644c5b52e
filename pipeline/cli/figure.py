"""`lite-pipeline figure`: one of the paper's figures, of any dataset, as a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli import options, output
from pipeline.errors import ConfigError


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(figure)


def figure(
    number: Annotated[
        int, typer.Argument(metavar="1|2|3|4|5|7", help="The paper's number of the figure.")
    ],
    out: Annotated[Path, typer.Option(help="File to write, .png, .svg or .pdf.")],
    store: Annotated[
        str | None, typer.Option(help="Folder or URL of an oracle store: Figures 3, 4 and 7.")
    ] = None,
    evaluation: Annotated[
        str | None, typer.Option("--eval", help="Folder of an evaluation: Figures 1, 2 and 5.")
    ] = None,
    data_root: Annotated[
        str | None, typer.Option(help="Folder of the store's videos: Figures 4 and 7.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Folder of a trained selector or model: Figure 7.")
    ] = None,
    oracle: options.StoreOracle = None,
) -> None:
    """Draw a figure of the paper from a store or an evaluation, or say what it lacks."""
    from pipeline import open_store
    from pipeline.store.root import Root

    options.require_drawing()
    from selector.evaluation.files import Evaluation
    from selector.evaluation.report.summary import summarise
    from selector.report.figures import FIGURES, evaluation_figure, store_figure
    from selector.report.files import FORMATS, picture_bytes

    kind = out.suffix.lower().removeprefix(".")
    if kind not in FORMATS:
        raise ConfigError(f"{out} must end in {', '.join(f'.{name}' for name in FORMATS)}")
    if number not in FIGURES:
        raise ConfigError(f"the figures are {', '.join(map(str, FIGURES))}, got {number}")
    options.require_writable_file(out)
    if number in (1, 2, 5):
        summary = None if evaluation is None else summarise(Evaluation(evaluation))
        for caution in [] if summary is None else summary.cautions:
            output.note(caution)
        picture = evaluation_figure(number, summary)
    else:
        opened = None if store is None else open_store(store)
        loaded = None
        if model is not None and number == 7:
            from selector.deploy.model import LiteModel

            loaded = LiteModel.from_pretrained(model)
        picture = store_figure(number, opened, data_root=data_root, model=loaded, oracle=oracle)
    Root(out.absolute().parent).put(out.name, picture_bytes(picture, kind))
    output.echo(f"{out}: {FIGURES[number]}")
