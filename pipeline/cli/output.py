"""All that the command line writes: escaped, without passwords, as wide as the terminal.

What is quoted in a message or a table (paths, names, libraries' words) is foreign. Every line
passes `printable`, so no terminal code gets out, and a line break in a file name forges no line:
`echo` and a cell of a table print one line, and the further lines of an error are indented.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import sys
import textwrap
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO

import typer

from pipeline import strict_json
from pipeline.errors import naming, printable, without_passwords

if TYPE_CHECKING:
    from pipeline.shards.progress import Progress

PROSE_WIDTH = 80


@dataclass
class _Settings:
    """What the options of the whole program ask for."""

    quiet: bool = False
    verbose: bool = False
    width: int | None = None
    """Columns to fill; None: the terminal's, and as many as it takes where there is none."""


settings = _Settings()


@contextlib.contextmanager
def narrowed(columns: int) -> Iterator[None]:
    """Inside, nothing is wider than `columns`, in a pipe neither."""
    before = settings.width
    settings.width = min(columns, room() or columns)
    try:
        yield
    finally:
        settings.width = before


def one_line(text: object) -> str:
    """The text as it is shown: escaped, without passwords, on one line."""
    return printable(without_passwords(str(text)))


def safe(text: str, indent: str = "") -> str:
    """The lines of a text, each escaped, without passwords; `indent` before all but the first."""
    first, *others = without_passwords(text).split("\n")
    rest = [line if line.startswith(indent) else indent + line for line in others]
    return "\n".join(map(printable, [first, *rest]))


def echo(line: str = "", *, err: bool = False) -> None:
    """Print one line, whatever it quotes."""
    typer.echo(one_line(line), err=err)


def echo_lines(text: str, *, err: bool = False) -> None:
    """Print a text whose line breaks are meant; what it quotes must be `printable` by itself."""
    typer.echo(safe(text), err=err)


def echo_json(value: Any) -> None:
    """Print a value for a program; a number that is none is null."""
    typer.echo(without_passwords(strict_json.dumps(value, indent=2)))


class JsonLines:
    """Values for a program, each on a line of its own as soon as it is known."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream

    def add(self, value: Any) -> None:
        """Write one, where lines are wanted."""
        if self._stream is not None:
            with naming(getattr(self._stream, "name", None)):
                self._stream.write(without_passwords(strict_json.dumps(value)) + "\n")
                self._stream.flush()


@contextlib.contextmanager
def json_lines(place: str | None) -> Iterator[JsonLines]:
    """Lines of JSON to a file that is begun anew, to standard output (`-`), or to nowhere."""
    if place is None or place == "-":
        yield JsonLines(None if place is None else sys.stdout)
        return
    stream = open(place, "w", encoding="utf-8")  # noqa: SIM115 (closing it may fail, too)
    try:
        yield JsonLines(stream)
    finally:
        with naming(place):
            stream.close()


def note(line: str) -> None:
    """Print what is good to know beside the result: on stderr, and not with --quiet."""
    if not settings.quiet:
        echo(line, err=True)


def echo_error(error: BaseException | str, sentence: str | None = None) -> None:
    """Print what went wrong on stderr, with --verbose also where; further lines are indented.

    Args:
        error: what was raised, or the sentence itself.
        sentence: what to say of it; by default its own message.
    """
    if settings.verbose and isinstance(error, BaseException):
        echo_traceback(error)
    typer.echo(f"error: {safe(str(error) if sentence is None else sentence, '  ')}", err=True)


def echo_traceback(error: BaseException) -> None:
    """Print where an error came from, on stderr."""
    echo_lines("".join(traceback.format_exception(error)).rstrip("\n"), err=True)


def progress_stream() -> TextIO | None:
    """Where the progress of long work goes: stderr, or nowhere with --quiet."""
    return None if settings.quiet else sys.stderr


def progress(total: int, done: int = 0, unit: str = "clips") -> Progress:
    """The progress of long work, shown on stderr unless --quiet was given."""
    from pipeline.shards.progress import Progress

    return Progress(total=total, done=done, unit=unit, stream=progress_stream())


@contextlib.contextmanager
def counted(unit: str) -> Iterator[Callable[[int, int], None]]:
    """Yields what shows the progress of work that calls it with (items done, items in all)."""
    shown: Progress | None = None

    def show(done: int, total: int) -> None:
        nonlocal shown
        if shown is None:  # made at the first call, so that the rate is this run's own
            shown = progress(total, done, unit)
        shown.add(done - shown.done)

    try:
        yield show
    finally:
        if shown is not None:
            shown.close()


def echo_prose(text: str, indent: str = "") -> None:
    """Print a paragraph in lines that every terminal shows, at most `PROSE_WIDTH` long.

    Args:
        text: its line breaks are spaces.
        indent: before every line.
    """
    width = min(PROSE_WIDTH, room() or PROSE_WIDTH)
    lines = textwrap.wrap(
        one_line(" ".join(text.split())),
        width=max(width, 20),
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    typer.echo("\n".join(lines))


def room() -> int | None:
    """Columns to fill; None where nobody looks."""
    if settings.width is not None:
        return settings.width
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


class LogHandler(logging.Handler):
    """Log records on stderr, each on one line; further lines of it are indented.

    It asks for `sys.stderr` at every record, so that a live display can move out of the way.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        """Write it."""
        try:
            typer.echo(safe(self.format(record), indent="  "), file=sys.stderr)
        except Exception:
            self.handleError(record)


def set_verbosity(*, quiet: bool, verbose: bool) -> None:
    """How much is said beside the result, and of what comes from the packages' loggers."""
    settings.quiet, settings.verbose = quiet, verbose
    for handler in logging.getLogger().handlers:
        if isinstance(handler, LogHandler):
            handler.setLevel(
                logging.DEBUG if verbose else logging.ERROR if quiet else logging.WARNING
            )
            for package in ("pipeline", "selector", "datasets_spec"):
                logging.getLogger(package).setLevel(logging.DEBUG if verbose else logging.NOTSET)
