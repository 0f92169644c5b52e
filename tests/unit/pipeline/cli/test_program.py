"""What every command shares: mistakes are one sentence, bugs keep their traceback."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

import pipeline.store.reader
from pipeline.cli import app
from tests.stores import make_store


def run(*arguments):
    return CliRunner().invoke(app, [*map(str, arguments)])


def program(*arguments, code=None):
    """Runs the console script; `code` runs before it."""
    script = f"{code or ''}\nfrom pipeline.cli import main\nmain()"
    return subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"NO_COLOR": "1"},
    )


def test_version_names_what_a_report_of_a_bug_needs():
    result = run("--version")
    assert result.exit_code == 0
    assert result.output.startswith("lite-pipeline 0.")
    for name in ("Python 3.", "torch ", "transformers ", "ray "):
        assert name in result.output


@pytest.mark.parametrize("command", [(), ("build-oracle",), ("datasets", "check")])
def test_help_has_a_short_form_everywhere(command):
    short, long = run(*command, "-h"), run(*command, "--help")
    assert short.exit_code == 0
    assert short.output == long.output
    assert "Usage: " in short.output


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("build-oracle --retry", {"--retry-failed"}),
        ("build-oracle --dataset s", {"ssv2", "synthetic"}),
        ("evaluate --decoder t", {"torchcodec"}),
        ("datasets ch", {"check"}),
    ],
)
def test_completion_is_offered(typed, offered):
    words = f"lite-pipeline {typed}"
    env = {
        "_LITE_PIPELINE_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - 1),
    }
    result = CliRunner().invoke(app, [], env=env, prog_name="lite-pipeline")
    assert set(result.output.split()) == offered


def test_quiet_and_verbose_exclude_each_other():
    result = run("--quiet", "--verbose", "datasets")
    assert result.exit_code == 2
    assert "exclude each other" in result.stderr


def test_quiet_leaves_out_progress_and_nothing_else(tmp_path):
    store = make_store(tmp_path / "store", 12)
    loud, quiet = (run(*how, "verify", "--store", store.root) for how in ([], ["-q"]))
    assert loud.stdout == quiet.stdout == "sound and complete\n"
    assert "3/3 shards" in loud.stderr
    assert quiet.stderr == ""


def test_verbose_also_says_where_an_error_came_from(tmp_path):
    plain, verbose = (run(*how, "status", "--store", tmp_path / "no") for how in ([], ["-v"]))
    assert plain.exit_code == verbose.exit_code == 1
    assert plain.stderr.startswith("error: no store at ")
    assert len(plain.stderr.splitlines()) == 1
    assert "Traceback" in verbose.stderr
    assert verbose.stderr.endswith(plain.stderr)


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "a/b"), "a/b: Permission denied"),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (FileExistsError(errno.EEXIST, "File exists", b"a\xff", None, b"b"), "a\\udcff -> b: File"),
    ],
)
def test_what_the_system_refuses_is_a_sentence(monkeypatch, error, sentence):
    def refuse(*args):
        raise error

    monkeypatch.setattr(pipeline.store.reader, "open_store", refuse)
    result = run("status", "--store", "anything")
    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: {sentence}")
    assert len(result.stderr.splitlines()) == 1


def test_what_an_object_store_refuses_is_a_sentence(monkeypatch):
    botocore = pytest.importorskip("botocore.exceptions")

    def refuse(*args):
        raise botocore.NoCredentialsError

    monkeypatch.setattr(pipeline.store.reader, "open_store", refuse)
    result = run("status", "--store", "s3://bucket/store")
    assert result.exit_code == 1
    assert result.stderr == (
        "error: the object store: NoCredentialsError: Unable to locate credentials\n"
    )


def test_a_bug_keeps_its_traceback_and_says_that_it_is_one():
    code = """
import pipeline.store.reader
def broken(url):
    raise KeyError("videos/\\x1b[31m")
pipeline.store.reader.open_store = broken
"""
    result = program("status", "--store", "x", code=code)
    assert result.returncode == 1
    assert "Traceback (most recent call last):" in result.stderr
    assert "in broken" in result.stderr
    assert "\x1b" not in result.stderr
    assert "this is a bug in lite-pipeline" in result.stderr.splitlines()[-1]


def test_a_mistake_is_no_bug():
    result = program("status", "--store", "nowhere/at/all")
    assert result.returncode == 1
    assert result.stderr.startswith("error: no store at ")
    assert "bug" not in result.stderr
    assert "Traceback" not in result.stderr


def test_a_reader_that_closes_the_pipe_is_no_error():
    result = subprocess.run(
        f"{sys.executable} -m pipeline.cli datasets --json | true",
        shell=True,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.stderr == ""


def test_text_that_the_terminal_has_no_letters_for_is_escaped(tmp_path):
    store = make_store(tmp_path / "é視", 4)
    result = subprocess.run(
        [sys.executable, "-m", "pipeline.cli", "status", "--store", str(store.root)],
        capture_output=True,
        check=False,
        env=os.environ | {"PYTHONIOENCODING": "latin-1"},
    )
    assert result.returncode == 0, result.stderr
    assert b"/\xe9\\u8996\n" in result.stdout


@pytest.mark.parametrize(
    "words",
    [
        ("train-selector", "--store", "s", "--out", ""),
        ("datasets", "check", "ssv2", "--data-root", ""),
        ("predict", "", "--model", "m"),
    ],
)
def test_an_empty_argument_does_not_mean_the_folder_one_is_in(words):
    result = run(*words)
    assert result.exit_code == 2
    assert "an argument is empty" in result.stderr


def test_a_file_name_with_a_dash_gets_a_hint():
    result = run("predict", "--model", "m", "-3x.mp4")
    assert result.exit_code == 2
    assert "goes after a lone --" in " ".join(result.stderr.replace("│", "").split())
    # Where no file can be given there is nothing to hint at.
    assert "lone --" not in run("status", "--sotre", "x").stderr
