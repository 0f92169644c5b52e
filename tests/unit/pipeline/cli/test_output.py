"""What the command line writes: one line is one line, whatever it quotes."""

from __future__ import annotations

import ast
import json
import logging
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline.cli import app, output
from pipeline.cli.table import Column, echo_table
from pipeline.errors import ClipStatus, DriverError
from tests.stores import make_store


@pytest.fixture
def width(monkeypatch):
    def set_width(columns):
        monkeypatch.setattr(output.settings, "width", columns)

    return set_width


def test_a_cell_and_a_line_cannot_forge_another(capsys):
    output.echo("x\nready for a build")
    echo_table([Column("path")], [["a\n\x1b[2Jsound and complete"]])
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
        assert not found or path.name in ("output.py", "table.py"), (
            f"{path}: use output.echo: {found}"
        )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full here")
def test_lines_for_a_full_disk_name_their_file():
    with (
        pytest.raises(OSError, match="No space left on device: '/dev/full'"),
        output.json_lines("/dev/full") as lines,
    ):
        lines.add({"answer": 1})
