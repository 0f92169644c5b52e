"""`lite-pipeline table`: one of the paper's tables, of an evaluation of any dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli import options, output
from pipeline.errors import ConfigError


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("table")(paper_table)


def paper_table(
    number: Annotated[
        int, typer.Argument(metavar="1|2|3|4|5|6", help="The paper's number of the table.")
    ],
    evaluation: Annotated[str, typer.Option("--eval", help="Folder or URL of an evaluation.")],
    keep_ratio: Annotated[
        float, typer.Option(help="Of Table 5, whose own the paper does not give.")
    ] = 0.5,
    out: Annotated[
        Path | None,
        typer.Option(help="File to write, .csv, .md or .tex; by default Markdown is printed."),
    ] = None,
) -> None:
    """Make a table of the paper from an evaluation, and say what it lacks."""
    from pipeline.store.root import Root
    from selector.evaluation.files import Evaluation
    from selector.evaluation.report.paper_tables import FORMATS, to_markdown
    from selector.evaluation.report.paper_tables import paper_table as made
    from selector.evaluation.report.summary import summarise

    if out is not None:
        ending = out.suffix.lower().removeprefix(".")
        if ending not in FORMATS:
            raise ConfigError(f"{out} must end in {', '.join(f'.{name}' for name in FORMATS)}")
        options.require_writable_file(out)
    summary = summarise(Evaluation(evaluation))
    table = made(number, summary, keep_ratio)
    for caution in summary.cautions:
        output.note(caution)
    if table.lacking:
        output.note(f"not evaluated: {', '.join(table.lacking)}. To have them: {table.command}")
    if out is None:
        output.echo_lines(to_markdown(table).rstrip("\n"))
    else:
        Root(out.absolute().parent).put(out.name, FORMATS[ending](table).encode())
        output.echo(str(out))
