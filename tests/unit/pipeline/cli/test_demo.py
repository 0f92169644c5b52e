"""The demo is nothing but commands that can be typed, and each of them is valid."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer

from pipeline.cli import app
from pipeline.cli.demo import steps


@pytest.mark.parametrize("small", [False, True])
def test_every_step_parses_as_the_command_it_names(small: bool):
    root = typer.main.get_command(app)
    for title, arguments in steps(Path("demo"), 2, small):
        assert title
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
