"""On a real terminal: a bar, tables that fit it, and colours nowhere else."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios

import pytest

from pipeline.errors import ClipStatus
from tests.stores import make_store


def on_a_terminal(*arguments, columns):
    """What a terminal of so many columns receives, and the exit code."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    env = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES", "NO_COLOR")}
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline.cli", *map(str, arguments)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=env | {"TERM": "xterm-256color"},
    )
    os.close(theirs)
    received = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        received += part
    os.close(ours)
    return received.decode(), process.wait()


def lines_of(text):
    """Without the codes of colours and cursor."""
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text).replace("\r", "").split("\n")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    root = tmp_path_factory.mktemp("s") / "s"
    return make_store(root, 40, failed={3: ClipStatus.DECODE_ERROR}).root


def test_long_work_draws_a_bar_and_then_its_result(store):
    text, code = on_a_terminal("verify", "--store", store, columns=80)
    assert code == 0
    assert "━" in text
    assert "10/10 shards (100 %)" in text
    assert lines_of(text)[-2:] == ["sound and complete", ""]
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")  # the cursor is shown again


def test_quiet_draws_none(store):
    text, code = on_a_terminal("--quiet", "verify", "--store", store, columns=80)
    assert (text, code) == ("sound and complete\r\n", 0)


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_a_table_is_as_wide_as_the_terminal_allows(store, columns):
    text, code = on_a_terminal("failures", "--store", store, columns=columns)
    assert code == 0
    assert "\x1b[1mstatus" in text  # the head is bold
    lines = lines_of(text)
    assert max(map(len, lines)) <= columns
    assert lines[-2] == "1 failed (1 decode_error)"
