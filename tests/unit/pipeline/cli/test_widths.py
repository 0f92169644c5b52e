"""Whatever a command prints fits a terminal of 80 columns, but for paths, which stay whole."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from pipeline.cli import app, output
from pipeline.errors import ClipStatus
from tests.learnable import make_learnable_store
from tests.stores import make_store

WORDS = "the container names no frame rate and its index points behind the end of the file"


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setattr(output.settings, "width", 80)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Sixty clips of classes with long names, two of them failed."""
    failed = {3: ClipStatus.DECODE_ERROR, 30: ClipStatus.MODEL_ERROR}
    names = [f"pretending to put {i} things into something" for i in range(3)]
    folder = tmp_path_factory.mktemp("s")
    return make_store(folder / "s", 60, failed=failed, label_names=names)


def lines_of(*arguments):
    result = CliRunner().invoke(app, [*map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result.stdout.splitlines()  # sentences on stderr are as long as they are


def assert_narrow(lines):
    too_wide = [line for line in lines if len(line) > 80 and "/" not in line.split()[-1]]
    assert not too_wide


@pytest.mark.parametrize("command", ["status", "verify", "failures", "analyze"])
def test_what_reads_a_store(terminal, store, command):
    assert_narrow(lines_of(command, "--store", store.root))


def test_failures_with_a_long_message_are_folded_and_whole(terminal, store, monkeypatch):
    shown = type(store).clips
    monkeypatch.setattr(
        type(store),
        "clips",
        lambda self, **options: shown(self, **options).assign(error=WORDS, segment=[0, 1]),
    )
    lines = lines_of("failures", "--store", store.root)
    assert_narrow(lines)
    assert lines[0].split() == ["status", "video", "view", "error"]
    assert " ".join(" ".join(lines).split()).count("decode_error") == 2  # a row, and the sum
    column = lines[0].index("error")
    assert WORDS in " ".join(line[column:].strip() for line in lines[1:])


def test_the_list_of_datasets(terminal):
    lines = lines_of("datasets")
    assert_narrow(lines)
    assert "Something-Something V2" in " ".join(" ".join(lines).split())


def test_the_list_of_methods(terminal):
    lines = lines_of("methods")
    assert_narrow(lines)
    assert any(line.strip().startswith("lite-spread") for line in lines)


def test_a_checked_dataset(terminal, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a path is never cut, and pytest's may be a long one
    label = "Pretending or trying and failing to twist something into a shape it cannot have at all"
    (tmp_path / "labels.json").write_text(json.dumps({label: "0", "Closing something": "1"}))
    entries = [{"id": str(i), "template": "Closing [something]"} for i in range(3)]
    (tmp_path / "train.json").write_text(json.dumps(entries))
    folder = tmp_path / "20bn-something-something-v2"
    folder.mkdir()
    (folder / "0.webm").write_bytes(b"video")
    assert_narrow(lines_of("datasets", "check", "ssv2", "--data-root", "."))


def test_a_trained_selector(terminal, tmp_path):
    store = make_learnable_store(tmp_path / "s")
    options = ("--epochs", "1", "--hidden", "8", "--device", "cpu")
    lines = lines_of("train-selector", "--store", store.root, "--out", tmp_path / "out", *options)
    assert_narrow(lines)
