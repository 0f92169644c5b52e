"""Where a long run stands: done, rate, time left, failures, and what it is bound by.

Totals are the store's, so they are right after any number of restarts; the rate is this run's own.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.live import Live

PHASES = ("decode", "compute", "write")

_REDRAWN_PER_S = 4
_BAR_WIDTH = 16
_LOG_EVERY_S = 30.0


@dataclass(kw_only=True)
class Progress:
    """Counts of a run, and what shows them.

    Attributes:
        total: items of the whole job.
        done: items that were done before this run began.
        failed: how many of those are failures.
        unit: what an item is called.
        stream: where it is shown; None stays silent. A terminal has a bar and a line, drawn anew
            all the time; anything else gets a new line every 30 seconds and one at the end.
    """

    total: int
    done: int = 0
    failed: int = 0
    unit: str = "clips"
    stream: TextIO | None = None
    clock: Callable[[], float] = time.monotonic
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PHASES, 0.0))

    def __post_init__(self) -> None:
        self._before = self.done
        self._began = self.clock()
        self._shown_at = self._began
        self._live: Live | None = None

    def add(self, items: int, failed: int = 0, seconds: Mapping[str, float] | None = None) -> None:
        """Count finished items, and where their time went (`decode`, `compute`, `write`)."""
        self.done += items
        self.failed += failed
        for phase, spent in (seconds or {}).items():
            self.seconds[phase] = self.seconds.get(phase, 0.0) + spent
        self.show()

    @property
    def rate(self) -> float | None:
        """Items per second of this run; None before the first."""
        elapsed = self.clock() - self._began
        fresh = self.done - self._before
        return fresh / elapsed if fresh > 0 and elapsed > 0 else None

    @property
    def seconds_left(self) -> float | None:
        """Time to the end at this run's rate; None before the first item."""
        return (self.total - self.done) / self.rate if self.rate else None

    @property
    def bound_by(self) -> str | None:
        """The phase that took most of the time; None before anything was measured."""
        phase = max(self.seconds, key=lambda name: self.seconds[name])
        return phase if self.seconds[phase] > 0 else None

    def line(self) -> str:
        """The current line, without a newline."""
        share = self.done / self.total if self.total else 1.0
        parts = [f"{self.done}/{self.total} {self.unit} ({100 * share:.0f} %)"]
        if self.rate is not None:
            parts.append(f"{_rate(self.rate)} {self.unit}/s")
        if self.done < self.total and self.seconds_left is not None:
            parts.append(f"{_duration(self.seconds_left)} left")
        if self.failed:
            parts.append(f"{self.failed} failed")
        if self.bound_by is not None:
            parts.append(f"bound by {self.bound_by}")
        return ", ".join(parts)

    def show(self) -> None:
        """Draw the bar, or write a line if it is time to."""
        if self.stream is None:
            return
        if _can_redraw(self.stream):
            if self._live is None:
                self._live = self._start_bar(self.stream)
            return
        now = self.clock()
        if now - self._shown_at >= _LOG_EVERY_S:
            self._shown_at = now
            self._write_line()

    def close(self) -> None:
        """Show where it ended; nothing if nothing was done and nothing shown."""
        if self._live is not None:
            self._live.stop()
            self._live = None
        elif self.done > self._before:
            self._write_line()

    def _write_line(self) -> None:
        if self.stream is not None:
            self.stream.write(self.line() + "\n")
            self.stream.flush()

    def _start_bar(self, stream: TextIO) -> Live:
        from rich.console import Console, RenderableType
        from rich.live import Live
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        def draw() -> RenderableType:
            grid = Table.grid(padding=(0, 1))
            bar = ProgressBar(total=self.total or 1, completed=self.done, width=_BAR_WIDTH)
            grid.add_row(bar, Text(self.line()))
            return grid

        live = Live(
            console=Console(file=stream),
            get_renderable=draw,
            refresh_per_second=_REDRAWN_PER_S,
            redirect_stdout=False,  # it may be a file
            redirect_stderr=stream is sys.stderr,  # log lines are to stand above the bar
        )
        live.start(refresh=True)
        live.console.show_cursor(True)  # which a process that is killed could not do any more
        return live


def _can_redraw(stream: TextIO) -> bool:
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def _rate(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.2g}"


def _duration(seconds: float) -> str:
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    hours = seconds // 3600
    if hours < 48:
        return f"{hours} h {seconds % 3600 // 60:02d} min"
    return f"{hours // 24} d {hours % 24} h"
