"""`lite-pipeline train-selector`: what it prints, and how it fails."""

import json

import pytest
from typer.testing import CliRunner

from pipeline.cli import app
from tests.learnable import make_learnable_store

OPTIONS = ["--epochs", "2", "--hidden", "16", "--held-out", "0.3", "--device", "cpu"]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_learnable_store(tmp_path_factory.mktemp("store") / "s", failed=(3, 17))


def run(store, out, *options):
    command = ["train-selector", "--store", str(store), "--out", str(out), *OPTIONS, *options]
    return CliRunner().invoke(app, command)


def test_it_prints_a_table_against_random_and_the_oracle(store, tmp_path):
    result = run(store.root, tmp_path)
    assert result.exit_code == 0, result.output
    rows = [line.split() for line in result.stdout.splitlines()]
    at = [row[0] if row else "" for row in rows].index("BCE")
    names = ["selector", "random", "oracle"]
    assert [row[0] for row in rows[at + 1 : at + 4]] == names
    assert rows[at + 3][2] == "1.000"  # the oracle's rank correlation with itself
    assert rows[at + 4][0] == "keeping"
    assert rows[at + 5] == ["recall,", "%"]
    assert [row[0] for row in rows[at + 6 : at + 9]] == names
    assert rows[at + 8] == ["oracle"] + ["100.0"] * (len(rows[at + 4]) - 1)
    assert rows[at + 9] == ["oracle", "mass", "kept,", "%"]
    assert "2 failed" in result.stdout
    assert "epoch 2 of at most 2, held-out loss" in result.stderr


def test_json_on_stdout_is_all_there_is(store, tmp_path):
    content = json.loads(run(store.root, tmp_path, "--json").stdout)
    assert content["methods"]["oracle"]["recall"]["0.5"] == 1
    assert content["selector"]["arch"] == "mlp"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--arch", "cnn"], "arch must be one of mlp"),
        (["--clean", "blur"], "clean must be none or of edges"),
        (["--device", "nonsense"], "device 'nonsense' cannot be used"),
        (["--arch", "global"], "--embeddings-per-clip all"),
    ],
)
def test_bad_options_are_one_line_and_exit_code_1(store, tmp_path, options, message):
    result = run(store.root, tmp_path, *options)
    assert result.exit_code == 1
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_no_store_is_one_line_too(tmp_path):
    result = run(tmp_path / "nowhere", tmp_path / "out")
    assert result.exit_code == 1
    assert "no store at" in result.stderr
