"""Tables fit where they are read."""

from __future__ import annotations

import re

import pytest

from pipeline.cli import output
from pipeline.cli.table import Column, echo_table

COLUMNS = [
    Column("keep", right=True),
    Column("tokens", right=True, spare=1),
    Column("alone", right=True, spare=2),
    Column("top-1 %"),
    Column("words"),
]
ROWS = [
    ["1", "288", "0.3", "83.4 [80.0, 86.6]", "short"],
    "random (mean of 3 seeds)",
    [0.5, 144, 0.1, "75.6 [72.5, 78.8]", "視頻 and a sentence that goes on for a while"],
]


@pytest.fixture
def width(monkeypatch):
    def set_width(columns):
        monkeypatch.setattr(output.settings, "width", columns)

    return set_width


def test_in_a_pipe_a_table_has_all_columns_and_a_line_a_row(capsys):
    echo_table(COLUMNS, ROWS)
    assert capsys.readouterr().out == (
        "keep  tokens  alone  top-1 %            words\n"
        "   1     288    0.3  83.4 [80.0, 86.6]  short\n"
        "random (mean of 3 seeds)\n"
        " 0.5     144    0.1  75.6 [72.5, 78.8]  視頻 and a sentence that goes on for a while\n"
    )


def test_on_a_narrow_terminal_spare_columns_go_first_and_then_words_fold(capsys, width):
    width(60)
    echo_table(COLUMNS, ROWS)
    # All five columns need 84 characters; without the two spare ones 69, so the words fold.
    assert capsys.readouterr().out == (
        "keep  top-1 %            words\n"
        "   1  83.4 [80.0, 86.6]  short\n"
        "random (mean of 3 seeds)\n"
        " 0.5  75.6 [72.5, 78.8]  視頻 and a sentence that goes on\n"
        "                         for a while\n"
        "(too narrow for: tokens, alone)\n"
    )


def test_only_the_spare_columns_that_have_no_room_are_left_out(capsys, width):
    width(78)
    echo_table(COLUMNS, ROWS)
    assert "(too narrow for: alone)" in capsys.readouterr().out


@pytest.mark.parametrize("columns", [20, 40, 60, 80, 100])
def test_no_line_is_wider_than_the_terminal(capsys, width, columns):
    width(columns)
    echo_table(COLUMNS[3:], [["x" * 70, "y" * 70], ["a b " * 30, "漢" * 50]], indent=2)
    for line in capsys.readouterr().out.splitlines():
        assert len(line) + len(re.findall("漢", line)) <= columns


def test_a_table_without_titles_has_no_head(capsys):
    echo_table([Column(""), Column("", right=True)], [("ok", 10), ("refused", 2)], indent=2)
    assert capsys.readouterr().out == "  ok       10\n  refused   2\n"
