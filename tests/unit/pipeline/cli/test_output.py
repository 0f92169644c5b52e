"""What the command line writes: one line is one line, and a table fits where it is read."""

from __future__ import annotations

import ast
import json
import logging
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline.cli import app, output
from pipeline.cli.output import Column
from pipeline.errors import ClipStatus, DriverError
from tests.stores import make_store

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
    output.echo_table(COLUMNS, ROWS)
    assert capsys.readouterr().out == (
        "keep  tokens  alone  top-1 %            words\n"
        "   1     288    0.3  83.4 [80.0, 86.6]  short\n"
        "random (mean of 3 seeds)\n"
        " 0.5     144    0.1  75.6 [72.5, 78.8]  視頻 and a sentence that goes on for a while\n"
    )


def test_on_a_narrow_terminal_spare_columns_go_first_and_then_words_fold(capsys, width):
    width(60)
    output.echo_table(COLUMNS, ROWS)
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
    output.echo_table(COLUMNS, ROWS)
    assert "(too narrow for: alone)" in capsys.readouterr().out


@pytest.mark.parametrize("columns", [20, 40, 60, 80, 100])
def test_no_line_is_wider_than_the_terminal(capsys, width, columns):
    width(columns)
    output.echo_table(COLUMNS[3:], [["x" * 70, "y" * 70], ["a b " * 30, "漢" * 50]], indent=2)
    for line in capsys.readouterr().out.splitlines():
        assert len(line) + len(re.findall("漢", line)) <= columns


def test_a_table_without_titles_has_no_head(capsys):
    output.echo_table([Column(""), Column("", right=True)], [("ok", 10), ("refused", 2)], indent=2)
    assert capsys.readouterr().out == "  ok       10\n  refused   2\n"


def test_a_cell_and_a_line_cannot_forge_another(capsys):
    output.echo("x\nready for a build")
    output.echo_table([Column("path")], [["a\n\x1b[2Jsound and complete"]])
    assert capsys.readouterr().out == (
        "x\\nready for a build\npath\na\\n\\x1b[2Jsound and complete\n"
    )


def test_further_lines_of_an_error_are_indented(capsys):
    output.echo_error(DriverError("cannot\n  split: a -> b\ncomplete: \x1b[1m ftp://u:pw@h/x"))
    assert capsys.readouterr().err == (
        "error: cannot\n  split: a -> b\n  complete: \\x1b[1m ftp://u:***@h/x\n"
    )


def test_log_lines_are_escaped_too(capsys):
    handler = output.LogHandler()
    logger = logging.getLogger("pipeline.of_this_test")
    logger.addHandler(handler)
    try:
        logger.warning("%s: broken", "v\x1b[0m\nERROR root: all is lost")
    finally:
        logger.removeHandler(handler)
    assert capsys.readouterr().err == (
        "WARNING pipeline.of_this_test: v\\x1b[0m\n  ERROR root: all is lost: broken\n"
    )


@pytest.mark.parametrize(("columns", "longest"), [(None, 80), (40, 40), (200, 80)])
def test_prose_is_as_narrow_as_the_terminal_but_at_most_80(capsys, width, columns, longest):
    text = "some words of prose " * 10
    width(columns)
    output.echo_prose(text, "  ")
    lines = capsys.readouterr().out.splitlines()
    assert longest - len("prose ") < max(map(len, lines)) <= longest
    assert all(line.startswith("  ") for line in lines)
    assert " ".join(" ".join(lines).split()) == text.strip()


HOSTILE = "videos/a\nok  videos/forged.mp4\x1b]0;title\x07\u202e.mp4"


@pytest.fixture
def store(tmp_path, monkeypatch):
    made = make_store(tmp_path / "store", 4, failed={1: ClipStatus.DECODE_ERROR})
    shown = made.clips

    def hostile(*args, **options):
        return shown(*args, **options).assign(path=HOSTILE, error="bad\n\x1b[31m ftp://u:pw@h/v")

    monkeypatch.setattr(type(made), "clips", lambda self, *args, **options: hostile(**options))
    return str(made.root)


def test_a_row_of_failures_is_one_line_whatever_its_path_and_message_hold(store):
    result = CliRunner().invoke(app, ["failures", "--store", store])
    head, *lines = result.output.split("\n")
    assert head.split() == ["status", "video", "error"]
    assert lines == [
        "decode_error  videos/a\\nok  videos/forged.mp4\\x1b]0;title\\x07\\u202e.mp4  "
        "bad\\n\\x1b[31m ftp://u:***@h/v",
        "1 failed (1 decode_error)",
        "",
    ]


def test_json_keeps_what_text_escapes(store):
    row = json.loads(CliRunner().invoke(app, ["failures", "--store", store, "--json"]).output)[0]
    assert row["path"] == HOSTILE


def test_nothing_else_prints():
    """Whatever a command prints passes `output`; ruff's T20 sees to `print`."""
    folder = Path(output.__file__).parent
    for path in folder.glob("*.py"):
        calls = [
            node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)
        ]
        found = [ast.unparse(call) for call in calls if ast.unparse(call.func) == "typer.echo"]
        assert not found or path.name == "output.py", f"{path}: use output.echo: {found}"
