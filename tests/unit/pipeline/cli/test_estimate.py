"""`lite-pipeline estimate`: what it prints, and what it refuses."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from pipeline.cli import app

GIVEN = ["--clips", "1000", "--decode-rate", "25", "--model-rate", "10"]


def run(*arguments: str):
    return CliRunner().invoke(app, ["estimate", *arguments])


def test_a_program_reads_the_numbers() -> None:
    result = run(*GIVEN, "--decode-workers", "0", "--start-seconds", "5", "--json")
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert found["shards"] == 4
    assert found["bound_by"] == "model"
    # No decoder: the sum of decoding, model, what a clip takes to write, and the start.
    per_clip = 1 / 25 + 1 / 10 + found["rates"]["write_s_per_clip"]
    assert found["seconds"] == pytest.approx(5 + 1000 * per_clip, rel=0.01)
    assert found["store_bytes"] == pytest.approx(1000 * sum(found["store_bytes_per_clip"].values()))


def test_people_read_a_table() -> None:
    result = run(*GIVEN, "--gpus", "2", "--nodes", "2")
    assert result.exit_code == 0
    rows = dict(line.split(None, 1) for line in result.stdout.splitlines() if "  " in line)
    assert rows["clips"] == "1000 in 4 shards"
    assert rows["bound"].split()[:2] == ["by", "model"]
    assert "4 GPU(s) on 2 nodes, 11 decoder(s) each" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--clips", "10"], "--data-root"),
        ([*GIVEN, "--decode-rate", "0"], "decode_rate"),
        ([*GIVEN, "--gpus", "1", "--workers", "2"], "--workers"),
        ([*GIVEN, "--gpus", "1", "--cpus-per-gpu", "1"], "--cpus-per-gpu"),
        ([*GIVEN, "--worker-hours", "0"], "worker_lifetime_s"),
        ([*GIVEN, "--backbone", "nowhere/at-all"], "nowhere/at-all"),
        ([*GIVEN, "--embeddings-per-clip", "many"], "--embeddings-per-clip"),
    ],
)
def test_a_mistake_is_one_sentence(arguments: list[str], says: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 1
    assert result.output.startswith("error: ")
    assert says in result.output
