"""The progress line: right totals, an ETA that a resume does not falsify, and little noise."""

from __future__ import annotations

import io
import re
import sys

import pytest

from pipeline.shards.progress import Progress


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock():
    return Clock()


def test_the_line_says_everything(clock):
    progress = Progress(total=1000, clock=clock)
    clock.now += 50
    progress.add(100, failed=3, seconds={"decode": 40.0, "compute": 9.0, "write": 1.0})
    assert progress.line() == (
        "100/1000 clips (10 %), 2.0 clips/s, 7 min 30 s left, 3 failed, bound by decode"
    )


def test_after_a_resume_the_rate_and_the_time_left_are_those_of_this_run(clock):
    progress = Progress(total=1000, done=900, failed=1, clock=clock)
    assert progress.rate is None
    assert progress.line() == "900/1000 clips (90 %), 1 failed"
    clock.now += 10
    progress.add(20)
    assert progress.rate == pytest.approx(2.0)
    assert progress.seconds_left == pytest.approx(40.0)


def test_at_the_end_nothing_is_left(clock):
    progress = Progress(total=10, clock=clock, unit="videos")
    clock.now += 1
    progress.add(10)
    assert progress.line() == "10/10 videos (100 %), 10.0 videos/s"


def test_an_empty_job_is_done():
    assert Progress(total=0).line() == "0/0 clips (100 %)"


def test_a_log_gets_a_line_every_half_minute_and_one_at_the_end(clock):
    stream = io.StringIO()
    progress = Progress(total=100, stream=stream, clock=clock)
    for _ in range(100):
        clock.now += 1
        progress.add(1)
    progress.close()
    lines = stream.getvalue().splitlines()
    assert len(lines) == 4
    assert lines[0].startswith("30/100")
    assert lines[-1].startswith("100/100")


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    return Terminal()


def test_a_terminal_gets_a_bar_that_is_drawn_anew_and_stays_at_the_end(clock, terminal):
    progress = Progress(total=100, failed=2, stream=terminal, clock=clock)
    for _ in range(50):
        clock.now += 1
        progress.add(1)
    progress.close()
    text = terminal.getvalue()
    *_, last = text.split("\x1b[2K")  # what stands after the last time the line was wiped
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", last).rstrip()
    # Half of the 16 characters of the bar are drawn brighter.
    bar = "━" * 8 + "╺" + "━" * 7
    assert shown == f"{bar} 50/100 clips (50 %), 1.0 clips/s, 50 s left, 2 failed"
    assert text.endswith("\n\x1b[?25h")  # the next line, with a cursor


def test_a_killed_run_leaves_a_cursor(clock, terminal):
    progress = Progress(total=100, stream=terminal, clock=clock)
    progress.show()
    try:
        hidden, shown = (
            terminal.getvalue().rfind("\x1b[?25l"),
            terminal.getvalue().rfind("\x1b[?25h"),
        )
        assert 0 <= hidden < shown
    finally:
        progress.close()


def test_a_line_too_long_for_the_terminal_is_folded(clock, terminal, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    progress = Progress(total=100_000, stream=terminal, clock=clock)
    clock.now += 1
    progress.add(10, failed=7, seconds={"decode": 1.0})
    progress.close()
    lines = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", terminal.getvalue()).splitlines()
    assert max(map(len, lines)) <= 40
    assert "bound by decode" in " ".join(" ".join(lines).split())


def test_log_lines_stand_above_the_bar(clock, terminal, monkeypatch):
    monkeypatch.setattr(sys, "stderr", terminal)
    progress = Progress(total=100, stream=terminal, clock=clock)
    progress.add(1)
    sys.stderr.write("WARNING something\n")
    progress.close()
    assert sys.stderr is terminal
    lines = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "\r", terminal.getvalue()).splitlines()
    assert "WARNING something" in lines  # whole and alone
    assert "1/100 clips" in lines[-2] + lines[-1]


def test_a_terminal_that_cannot_redraw_gets_lines(clock, terminal, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    progress = Progress(total=100, stream=terminal, clock=clock)
    clock.now += 31
    progress.add(50)
    progress.close()
    assert terminal.getvalue().splitlines() == ["50/100 clips (50 %), 1.6 clips/s, 31 s left"] * 2


@pytest.mark.parametrize(
    ("left", "text"),
    [(5, "5 s"), (65, "1 min 05 s"), (7260, "2 h 01 min"), (86400 * 3 + 7200, "3 d 2 h")],
)
def test_durations_are_readable(clock, left, text):
    progress = Progress(total=left + 1, clock=clock)
    clock.now += 1
    progress.add(1)
    assert f"{text} left" in progress.line()


def test_a_run_that_did_nothing_says_nothing_in_a_log(clock):
    stream = io.StringIO()
    Progress(total=5, stream=stream, clock=clock).close()
    assert stream.getvalue() == ""
