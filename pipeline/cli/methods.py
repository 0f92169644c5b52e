"""`lite-pipeline methods`: every way to make a clip cheaper that `evaluate` knows."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.cli import output


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("methods")(methods)


def methods(
    as_json: Annotated[bool, typer.Option("--json", help="For a program.")] = False,
) -> None:
    """List the methods: names, what their brackets take, and where they act.

    A+B is a chain of one before the blocks and one inside them.
    """
    from selector.methods.registry import METHODS

    if as_json:
        rows = {
            name: {"inside": known.inside, "brackets": known.brackets, "summary": known.summary}
            for name, known in METHODS.items()
        }
        output.echo_json(rows)
        return
    for inside, title in ((False, "before the first block"), (True, "inside the blocks")):
        output.echo(title)
        for name, known in METHODS.items():
            if known.inside == inside:
                output.echo(f"  {name}{known.brackets}")
                output.echo_prose(known.summary, "      ")
