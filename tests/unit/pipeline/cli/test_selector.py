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
    rows = {line.split()[0]: line.split() for line in result.stdout.splitlines()[-3:]}
    assert set(rows) == {"selector", "random", "oracle"}
    assert rows["oracle"][2:9] == ["1.000"] + ["100.0"] * 6
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
        (["--arch", "global"], "--tokens-per-clip all"),
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
