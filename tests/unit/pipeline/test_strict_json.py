"""Every command's JSON is taken by readers that know no NaN."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pipeline.cli import app, output
from pipeline.errors import ClipStatus
from pipeline.strict_json import dumps, json_values
from tests.evaluations import make_lite_evaluation
from tests.stores import make_store


def strict(text: str) -> Any:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    return json.loads(text, parse_constant=refuse)


def test_what_json_lacks_is_null():
    value = {0.5: [math.nan, 1.0, (math.inf, "x")], "a": {"b": None}}
    assert json_values(value) == {"0.5": [None, 1.0, [None, "x"]], "a": {"b": None}}
    assert strict(dumps(value)) == json_values(value)


def test_both_writers_of_the_command_line(capsys):
    output.echo_json({"low": math.nan})
    assert strict(capsys.readouterr().out) == {"low": None}
    with output.json_lines("-") as lines:
        lines.add({"high": -math.inf})
    assert strict(capsys.readouterr().out) == {"high": None}


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, str]:
    """Stores and an evaluation with as little in them as gives numbers that are none."""
    root: Path = tmp_path_factory.mktemp("strict")
    two = {"further_oracles": ("hirescam@blocks.-1.output",)}
    make_store(root / "one", 1, **two)
    make_store(root / "flat", 3, degenerate=(0, 1, 2), **two)
    make_store(root / "failures", 4, failed={1: ClipStatus.MISSING_FILE})
    make_lite_evaluation(root / "evaluation", num_videos=40)
    return {name: str(root / name) for name in ("one", "flat", "failures", "evaluation")}


@pytest.mark.parametrize(
    "command",
    [
        "analyze --store {one}",
        "analyze --store {flat}",
        "status --store {flat}",
        "failures --store {failures}",
        "verify --store {failures}",
        "evaluate --out {evaluation} --table-only",
        "evaluate --out {evaluation} --table-only --published 4",
        "methods",
        "datasets list",
    ],
)
def test_commands(folders, command: str):
    words = command.format(**folders).split()
    shown = CliRunner().invoke(app, [*words, "--json"])
    assert shown.exit_code == 0, shown.output
    assert strict(shown.stdout)
