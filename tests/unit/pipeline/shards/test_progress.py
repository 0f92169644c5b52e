"""The progress line: right totals, an ETA that a resume does not falsify, and little noise."""

from __future__ import annotations

import io

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


def test_a_terminal_gets_one_line_that_is_rewritten(clock):
    stream = Terminal()
    progress = Progress(total=100, stream=stream, clock=clock)
    for _ in range(100):
        clock.now += 1
        progress.add(1)
    progress.close()
    text = stream.getvalue()
    assert text.count("\n") == 1
    assert text.count("\r") == 101
    assert text.endswith("\n")


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
