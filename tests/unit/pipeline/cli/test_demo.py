"""The demo is nothing but commands that can be typed, and each of them is valid."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.cli.demo import _typed, next_steps, steps


@pytest.mark.parametrize("small", [False, True])
def test_every_step_parses_as_the_command_it_names(small: bool):
    root = typer.main.get_command(app)
    for title, arguments in [*steps(Path("demo"), 2, small), *next_steps(Path("demo"))]:
        assert 0 < len(f"# {title}") <= 80
        command, rest = root, list(arguments)
        while hasattr(command, "commands"):
            command = command.commands[rest.pop(0)]
        command.make_context("lite-pipeline", rest)  # raises on an unknown or missing option


def test_the_small_demo_does_the_same_steps_on_less():
    full, small = (steps(Path("demo"), 2, size) for size in (False, True))
    assert [title for title, _ in full] == [title for title, _ in small]


def test_no_step_writes_outside_the_folder():
    for _, arguments in steps(Path("elsewhere/demo"), 0, small=True):
        written = [arguments[i + 1] for i, word in enumerate(arguments) if word == "--out"]
        assert all(Path(path).parent == Path("elsewhere/demo") for path in written)


def test_a_command_is_shown_as_it_can_be_typed():
    for _, arguments in [*steps(Path("my demo"), 2, small=False), *next_steps(Path("demo"))]:
        shown = _typed(arguments)
        lines = shown.removeprefix("$ ").splitlines()
        assert max(map(len, shown.splitlines())) <= 80
        assert all(line.endswith(" \\") for line in lines[:-1])
        assert shlex.split(shown.removeprefix("$ ").replace("\\\n", "")) == [
            "lite-pipeline",
            *arguments,
        ]
        # No option is parted from its value.
        assert not any(line.split()[-2].startswith("--") for line in lines[:-1])


@pytest.mark.slow
def test_the_small_demo_ends_with_the_table_and_where_to_go_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["demo", "--small", "--workers", "0"])
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert not [line for line in lines if len(line) > 80]
    table = lines.index(next(line for line in lines if line.split()[:2] == ["keep", "GFLOPs"]))
    assert [line for line in lines[table:] if line in ("full", "lite")] == ["full", "lite"]
    shown = "\n".join(lines[table:]).replace("\\\n", "")
    commands = re.findall(r"^\$ lite-pipeline (.*)$", shown, re.M)
    names = [shlex.split(command)[0] for command in commands]
    assert names == ["report", "evaluate", "predict", "status"]
    for command in commands:
        again = CliRunner().invoke(app, shlex.split(command))
        assert again.exit_code == 0, again.output
    assert re.search(r"^done in \d+ s: open demo/report.html", result.stdout, re.M)
    assert "The five principles" in (tmp_path / "demo" / "report.html").read_text()
    assert (tmp_path / "demo" / "kept.png").stat().st_size > 500
