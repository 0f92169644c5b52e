"""The command line is what is written down: in `cli.txt`, in the documentation and in messages.

`python tests/contracts/test_command_line.py` writes `cli.txt` anew after a change that is meant.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer

from pipeline.cli import app

REPO = Path(__file__).resolve().parents[2]
FROZEN = Path(__file__).with_name("cli.txt")
PAGES = [REPO / "README.md", REPO / "BENCHMARKS.md", *sorted((REPO / "docs").glob("*.md"))]
SOURCES = [
    p for name in ("pipeline", "selector", "datasets_spec") for p in (REPO / name).rglob("*.py")
]


def commands(command: Any, name: str = "lite-pipeline") -> Iterator[tuple[str, Any]]:
    yield name, command
    for child, found in getattr(command, "commands", {}).items():
        yield from commands(found, f"{name} {child}")


ROOT = typer.main.get_command(app)
COMMANDS = dict(commands(ROOT))


def describe() -> str:
    """Every command with its options: names, default, whether it must be or may be repeated."""
    lines = []
    for name, command in COMMANDS.items():
        lines.append(name)
        for parameter in command.params:
            names = ", ".join([*parameter.opts, *parameter.secondary_opts])
            if parameter.param_type_name == "argument":
                names = f"<{parameter.name}>"
            unset = parameter.default is None or parameter.default is False
            notes = [] if unset else [f"= {parameter.default}"]
            notes += ["(required)"] * parameter.required
            notes += ["(repeatable)"] * (parameter.multiple or parameter.nargs == -1)
            lines.append("    " + " ".join([names, *notes]))
    return "\n".join(lines) + "\n"


def test_commands_and_options_are_those_written_down():
    assert describe() == FROZEN.read_text(), (
        "the command line changed: if it is meant, say so in CHANGELOG.md and run "
        "`python tests/contracts/test_command_line.py`"
    )


class Line(NamedTuple):
    """A command line in a text; one that is cut short (`...`) may lack what is required."""

    where: str
    words: list[str]
    whole: bool


def command_lines(path: Path) -> Iterator[Line]:
    """Those in code blocks, and those quoted in the text by backticks."""
    text = path.read_text()
    joined = re.sub(r"\\\n\s*", " ", text)
    blocks = re.findall(r"^(?:    |\$ )(lite-pipeline .*)$", joined, re.M)
    quoted = re.findall(r"`+(lite-pipeline [^`]*?)`+", joined.replace("\n", " "))
    for found, is_block in [(b, True) for b in blocks] + [(q, False) for q in quoted]:
        words = shlex.split(found, comments=True)[1:]
        whole = is_block and "..." not in words
        yield Line(f"{path.relative_to(REPO)}: {found}", [w for w in words if w != "..."], whole)


LINES = [line for page in PAGES for line in command_lines(page)]


def parse(line: Line) -> None:
    """Raises where the command or an option is not there, or a value does not fit."""
    command, words, name = ROOT, list(line.words), "lite-pipeline"
    while hasattr(command, "commands") and words and words[0] in command.commands:
        name = words.pop(0)
        command = command.commands[name]
    if hasattr(command, "commands") and words and not words[0].startswith("-"):
        raise AssertionError(f"no command {words[0]!r}")
    context = command.context_class(command, info_name=name)
    _, rest, _ = command.make_parser(context).parse_args(list(words))
    assert not rest, f"{rest} is no option, and {name} takes no arguments"
    if line.whole:
        command.make_context(name, words)


@pytest.mark.parametrize("line", LINES, ids=lambda line: line.where)
def test_every_command_line_of_the_documentation_parses(line: Line):
    parse(line)


def test_there_are_command_lines_of_each_kind():
    assert len(LINES) > 40
    assert {line.whole for line in LINES} == {True, False}
    assert {line.words[0] for line in LINES if line.words} >= set(ROOT.commands) - {"demo"}


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["build-orcale"], "no command 'build-orcale'"),
        (["status", "--sotre", "x"], "No such option: --sotre"),
        (["verify", "STORE"], "STORE"),
        (["verify"], "Missing option '--store'"),
        (["import-checkpoint", "--out", "o"], "Missing argument"),
        (["build-oracle", "--data-root", "d", "--store", "s", "--limit", "few"], "--limit"),
    ],
)
def test_a_wrong_command_line_is_seen(words, fault):
    with pytest.raises(Exception) as raised:  # noqa: PT011
        parse(Line("here", words, whole=True))
    shown = getattr(raised.value, "format_message", lambda: str(raised.value))()
    assert fault in shown


def test_commands_and_options_that_messages_name_exist():
    """Messages, help texts and comments of the code; an option right after its command."""
    options = {
        name: {o for p in command.params for o in p.opts + p.secondary_opts} | {"--help"}
        for name, command in COMMANDS.items()
    }
    wrong = []
    pattern = r"lite-pipeline ((?:[a-z][a-z-]* ?)*)((?:--[a-z-]+)?)"
    for path in SOURCES:
        for words, option in re.findall(pattern, path.read_text()):
            name, rest = "lite-pipeline", words.split()
            while rest and f"{name} {rest[0]}" in COMMANDS:
                name = f"{name} {rest.pop(0)}"
            # What follows the options of a command may be any word of a sentence.
            no_command = name == "lite-pipeline" and rest
            if no_command or (option and not rest and option not in options[name]):
                wrong.append(f"{path.relative_to(REPO)}: lite-pipeline {words}{option}")
    assert not wrong


if __name__ == "__main__":
    sys.exit(FROZEN.write_text(describe()) == 0)
