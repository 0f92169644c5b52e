"""`lite-pipeline serve`: what cannot work is one sentence, before anything is loaded."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from pipeline.cli import app, serve


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--keep-ratio", "0.5", "--adaptive"], "not both"),
        (["--precision", "fp8"], "precision must be one of"),
        (["--deadline", "0"], "deadline_s must be above 0"),
        (["--max-requests", "-1"], "max_requests must be above 0"),
        (["--host", "no such host", "--port", "0"], "cannot listen at no such host port 0: "),
        (["--port", "70000"], "cannot listen at 127.0.0.1 port 70000: "),
    ],
)
def test_bad_options_are_one_line_and_exit_code_1(options, message, caplog):
    result = CliRunner().invoke(app, ["serve", "--model", "nowhere", *options])
    assert result.exit_code == 1
    assert message in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.output
    assert ("it asks for no password" in caplog.text) == ("--host" in options)


def test_without_its_packages_it_says_how_to_get_them(monkeypatch):
    monkeypatch.setattr(serve, "find_spec", lambda name: None if name == "uvicorn" else object())
    result = CliRunner().invoke(app, ["serve", "--model", "nowhere"])
    assert result.exit_code == 1
    assert result.stderr == "error: serving needs uvicorn: pip install 'lite-pipeline[serve]'\n"
