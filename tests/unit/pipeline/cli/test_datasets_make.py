"""`lite-pipeline datasets make synthetic`: renders, resumes, and fails in one line."""

import pytest
from typer.testing import CliRunner

from pipeline.cli import app


def run(*arguments):
    return CliRunner().invoke(app, ["datasets", "make", *map(str, arguments)])


def test_it_renders_a_dataset_that_check_finds_ready(tmp_path):
    options = ["synthetic", "--out", tmp_path / "d", "--videos", 20, "--workers", 0]
    result = run(*options)
    assert result.exit_code == 0, result.output
    assert "--dataset synthetic" in result.stdout
    assert "20/20 videos (100 %)" in result.stderr
    again = run(*options)
    assert again.exit_code == 0
    check = CliRunner().invoke(
        app, ["datasets", "check", "synthetic", "--data-root", str(tmp_path / "d")]
    )
    assert check.exit_code == 0, check.output
    assert "18 classes" in check.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("ssv2", "--videos", 5), "only the dataset `synthetic` is rendered"),
        (("synthetic", "--videos", 0), "at least 1 video"),
        (("synthetic", "--videos", 5), "is not an empty folder"),
    ],
)
def test_what_cannot_be_made_is_one_line_and_exit_code_1(tmp_path, arguments, message):
    (tmp_path / "mine.txt").write_text("mine")
    result = run(*arguments, "--out", tmp_path)
    assert result.exit_code == 1
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
