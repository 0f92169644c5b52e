"""Tables that fit the terminal, and lose nothing in a pipe."""

from __future__ import annotations

import itertools
import sys
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import typer

from pipeline.cli import output

_NARROWEST = 8  # characters that a folded column keeps


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        title: its heading.
        right: numbers stand to the right.
        spare: 0 is always shown; where the terminal is too narrow, the highest is left out first.
    """

    title: str
    right: bool = False
    spare: int = 0


def echo_table(
    columns: Sequence[Column],
    rows: Iterable[Sequence[object] | str],
    *,
    indent: int = 0,
    gap: int = 2,
) -> None:
    """Print a table: as wide as it takes in a pipe, never wider than a terminal.

    On a terminal that is too narrow, spare columns are left out, which a last line says, and then
    the widest are folded. In a pipe every row is one line.

    Args:
        columns: at least one.
        rows: the cells of a row, one for each column; or a heading over the rows that follow.
        indent: spaces before every line.
        gap: spaces between two columns.
    """
    safe_rows = [
        output.one_line(row) if isinstance(row, str) else [*map(output.one_line, row)]
        for row in rows
    ]
    room = output.room()
    shown, widths = _fit(columns, [row for row in safe_rows if isinstance(row, list)], indent, gap)
    kept = [columns[i] for i in shown]
    lines = _draw(kept, widths, [], gap) if any(column.title for column in kept) else []
    for is_heading, block in itertools.groupby(safe_rows, key=lambda row: isinstance(row, str)):
        if is_heading:
            for heading in map(str, block):
                lines += textwrap.wrap(heading, room - indent) if room else [heading]
        else:
            lines += _draw(kept, widths, [[row[i] for i in shown] for row in block], gap)
    hidden = [column.title for i, column in enumerate(columns) if i not in shown]
    if hidden:
        lines.append(f"(too narrow for: {', '.join(hidden)})")
    typer.echo(textwrap.indent("\n".join(lines), " " * indent))


def _fit(
    columns: Sequence[Column], rows: Sequence[Sequence[str]], indent: int, gap: int
) -> tuple[list[int], list[int]]:
    """Which columns are shown, and how wide each of them is."""
    from rich.cells import cell_len

    natural = [
        max([cell_len(column.title), *(cell_len(row[i]) for row in rows)])
        for i, column in enumerate(columns)
    ]
    shown = list(range(len(columns)))
    room = output.room()
    if room is None:
        return shown, natural

    def excess() -> int:
        return indent + sum(natural[i] for i in shown) + gap * (len(shown) - 1) - room

    while excess() > 0 and any(columns[i].spare for i in shown):
        shown.remove(max(shown, key=lambda i: (columns[i].spare, i)))
    while excess() > 0:
        widest = max(shown, key=lambda i: natural[i])
        if natural[widest] <= _NARROWEST:
            break
        natural[widest] -= 1
    return shown, [natural[i] for i in shown]


def _draw(
    columns: Sequence[Column], widths: Sequence[int], rows: Sequence[Sequence[str]], gap: int
) -> list[str]:
    """The lines of some rows, or of the head where there are none."""
    if output.room() is None:
        return [_plain(columns, widths, row, gap) for row in rows or [[c.title for c in columns]]]
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=None, show_header=not rows, pad_edge=False, padding=(0, gap, 0, 0))
    for column, width in zip(columns, widths, strict=True):
        grid.add_column(
            Text(column.title),
            width=width,
            justify="right" if column.right else "left",
            overflow="fold",
            header_style="bold",
        )
    for row in rows:
        grid.add_row(*map(Text, row))
    console = Console(file=sys.stdout, width=sum(widths) + gap * (len(widths) - 1))
    with console.capture() as captured:
        console.print(grid)
    return [line.rstrip() for line in captured.get().splitlines()]


def _plain(columns: Sequence[Column], widths: Sequence[int], row: Sequence[str], gap: int) -> str:
    from rich.cells import cell_len

    padded = (
        " " * (width - cell_len(cell)) + cell
        if column.right
        else cell + " " * (width - cell_len(cell))
        for column, width, cell in zip(columns, widths, row, strict=True)
    )
    return (" " * gap).join(padded).rstrip()
