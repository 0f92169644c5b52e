"""The command line: parses, calls, prints. Heavy imports happen inside the commands.

`lite-pipeline --help` must answer in well under half a second, so nothing here imports torch, ray,
pandas or zarr at module level.
"""

from __future__ import annotations

import importlib
import logging
from typing import Any

import typer
from typer.core import TyperGroup

from datasets_spec.errors import DatasetSpecError
from pipeline.errors import LiteError

TOPICS = (
    "demo",
    "build",
    "inspect",
    "selector",
    "evaluate",
    "analyze",
    "predict",
    "calibrate",
    "export",
    "datasets",
    "backbone",
)


class _Group(TyperGroup):
    """Turns expected errors into one line and exit code 1, and Ctrl-C into exit code 130."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (LiteError, DatasetSpecError) as error:
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(1) from error
        except KeyboardInterrupt as error:
            typer.echo("interrupted; the same command resumes", err=True)
            raise typer.Exit(130) from error


app = typer.Typer(
    name="lite-pipeline",
    help="Oracle token values for video transformers, and the selector that makes them cheap.",
    cls=_Group,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

for _topic in TOPICS:
    importlib.import_module(f"pipeline.cli.{_topic}").register(app)


def main() -> None:
    """Entry point of the console script."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    app()
