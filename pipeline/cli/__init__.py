"""The command line: parses, calls, prints. Heavy imports happen inside the commands.

`lite-pipeline --help` must answer in well under half a second, so nothing here imports torch, ray,
pandas, zarr or rich at module level.

Exit codes: 0 done, 1 an error that one sentence explains (or a bug, with its traceback), 2 an
option or argument that does not exist or does not fit, 130 Ctrl-C, 143 SIGTERM.
"""

from __future__ import annotations

import errno
import importlib
import logging
import os
import platform
import sys
from importlib.metadata import version
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from datasets_spec.errors import DatasetSpecError
from pipeline.cli import output
from pipeline.errors import LiteError

COMMANDS = {
    "See all of it at once": ("demo", "accelerate"),
    "Stage 1: the oracle": (
        "estimate",
        "build_oracle",
        "status",
        "verify",
        "failures",
        "analyze",
        "show",
        "figure",
        "report",
    ),
    "Stage 2: the selector": (
        *(
            "train_selector",
            "methods",
            "adapt_backbone",
            "evaluate",
            "paper_table",
            "calibrate",
            "predict",
            "export_lite",
            "serve",
        ),
    ),
    "Data and backbones": (
        "datasets",
        "import_checkpoint",
        "pretrain_backbone",
        "train_backbone",
        "train_confidence",
    ),
}
"""Modules of this package, one a command, by the headings of `--help`; each has `register`."""

RESUMABLE = {
    "adapt-backbone",
    "demo",
    "accelerate",
    "build-oracle",
    "train-selector",
    "evaluate",
    "pretrain-backbone",
    "train-backbone",
    "train-confidence",
}
"""Commands that go on where they stopped when they are given again."""

OBJECT_STORES = {"botocore", "aiobotocore", "aiohttp", "gcsfs", "google", "adlfs", "azure"}
"""Libraries whose errors (no credentials, no network) are the place's and not ours."""

_UsageError: type[Exception] = typer.BadParameter.__bases__[
    0
]  # click's, or the copy of it that typer has


class _Group(TyperGroup):
    """Turns what a user can mend into one sentence and exit code 1, and Ctrl-C into code 130."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if "" in args:  # for a path it would be the folder one is in
            ctx.fail("an argument is empty: is a variable of the shell not set?")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (LiteError, DatasetSpecError) as error:
            output.echo_error(error)
            raise typer.Exit(1) from error
        except OSError as error:
            if error.errno in (None, errno.EPIPE):  # a library's own, or `... | head`
                raise
            output.echo_error(error, _sentence(error))
            raise typer.Exit(1) from error
        except _UsageError as error:
            _hint_at_dashes(error)
            raise
        except Exception as error:
            if type(error).__module__.partition(".")[0] not in OBJECT_STORES:
                raise
            output.echo_error(error, f"the object store: {type(error).__name__}: {error}")
            raise typer.Exit(1) from error
        except KeyboardInterrupt as error:
            goes_on = ctx.invoked_subcommand in RESUMABLE
            output.echo("interrupted" + goes_on * "; the same command resumes", err=True)
            raise typer.Exit(130) from error


def _sentence(error: OSError) -> str:
    """What the system says about a file or folder, without its number."""
    names = [name for name in (error.filename, error.filename2) if name is not None]
    where = " -> ".join(
        os.fsdecode(name) if isinstance(name, bytes) else str(name) for name in names
    )
    what = error.strerror or str(error)
    return f"{where}: {what}" if where else what


def _hint_at_dashes(error: Any) -> None:
    """Says how to name a file that begins with a dash, where an unknown option may be one."""
    unknown = getattr(error, "option_name", None) is not None and "No such option" in error.message
    if unknown and any(p.param_type_name == "argument" for p in error.ctx.command.params):
        error.message += ". A file whose name begins with a dash goes after a lone --, at the end"


app = typer.Typer(
    name="lite-pipeline",
    help="Oracle token values for video transformers, and the selector that makes them cheap.",
    cls=_Group,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(asked: bool) -> None:
    if asked:
        parts = [f"{name} {version(name)}" for name in ("torch", "transformers", "ray")]
        python = f"Python {platform.python_version()}"
        output.echo(f"lite-pipeline {version('lite-pipeline')} ({', '.join([python, *parts])})")
        raise typer.Exit


@app.callback()
def _program(
    verbose: Annotated[
        bool,
        typer.Option("--verbose", "-v", help="Show all log lines, and where an error came from."),
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No progress and no warnings: results and errors.")
    ] = False,
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    if quiet and verbose:
        raise typer.BadParameter("--quiet and --verbose exclude each other")
    output.set_verbosity(quiet=quiet, verbose=verbose)


for _panel, _modules in COMMANDS.items():
    _commands, _groups = len(app.registered_commands), len(app.registered_groups)
    for _module in _modules:
        importlib.import_module(f"pipeline.cli.{_module}").register(app)
    for _command in app.registered_commands[_commands:]:
        _command.rich_help_panel = _panel
    for _group in app.registered_groups[_groups:]:
        _group.rich_help_panel = _panel


def main() -> None:
    """Entry point of the console script."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    logging.getLogger().addHandler(output.LogHandler())
    logging.captureWarnings(True)
    try:
        app()
    except Exception as bug:
        output.echo_traceback(bug)
        output.echo_error(
            "this is a bug in lite-pipeline, not a mistake of yours: please report it with the "
            "lines above, the command, and what `lite-pipeline --version` says"
        )
        sys.exit(1)
