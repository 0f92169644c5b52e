"""A command that is written out makes the same store and the same evaluation again."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.store.reader import open_store
from selector.evaluation.files import Evaluation
from selector.report.commands import build_command, evaluate_command, train_command
from selector.report.made import trainings
from selector.training.config import TrainConfig
from selector.training.files import read_record, selector_digest
from selector.training.train import train_selector
from tests.builds import make_dataset, run_build
from tests.evaluations import run_evaluation
from tests.stores import make_store


def again(command: str, *more: str) -> None:
    words = shlex.split(command.replace("\\\n", " "))
    assert words[0] == "lite-pipeline"
    result = CliRunner().invoke(app, [*words[1:], *more])
    assert result.exit_code == 0, result.output


def test_the_same_fingerprints(tmp_path: Path, tiny_backbone: Path):
    data = make_dataset(tmp_path / "my data", 5)
    asked = {
        "further_oracles": ("hirescam@embeddings:predicted",),
        "num_segments": 2,
        "limit": 3,
        "embeddings_per_clip": -1,
        "seed": 4,
    }
    run_build(tmp_path / "store", data, tiny_backbone, asked=asked)
    config = open_store(tmp_path / "store").config
    command = build_command(config, str(tmp_path / "other store"), str(data))
    again(command, "--decode-workers", "0")
    assert open_store(tmp_path / "other store").config.fingerprint() == config.fingerprint()

    options = {"gflops": (0.00015,), "keep_ratios": (0.7, 0.5)}
    first = run_evaluation(tmp_path / "e", data, tiny_backbone, "random,oracle", **options)
    config = first.evaluation.config
    again(evaluate_command(config, str(tmp_path / "e2"), str(data)), "--decode-workers", "0")
    assert Evaluation(str(tmp_path / "e2")).config.fingerprint() == config.fingerprint()


@pytest.mark.parametrize("arch", ["mlp", "mlp4"])
def test_the_same_selector(tmp_path: Path, arch: str):
    made_by = {"further_oracles": ("hirescam@blocks.-1.output",), "embeddings_per_clip": 24}
    store = make_store(tmp_path / "store", 12, shards=[0, 1], **made_by)
    asked = TrainConfig(
        arch=arch, width=9, clean=("peaks",), epochs=2, learning_rate=0.001, held_out=0.25, seed=3
    )
    oracle = store.oracles[1]
    train_selector(store, tmp_path / "s", asked, allow_unfinished=True, oracle=oracle)
    record = read_record(tmp_path / "s")
    assert record is not None
    again(train_command(record, str(store.root.url), str(tmp_path / "s 2")))
    assert selector_digest(tmp_path / "s 2") == selector_digest(tmp_path / "s")

    [(said, command)], unknown = trainings(store, [], str(tmp_path / "s"))
    assert (said, unknown) == ("The selector:", [])
    assert f"--store {store.root}" in command
    other = make_store(tmp_path / "other", 12)
    [(said, command)], _ = trainings(other, [], str(tmp_path / "s"))
    assert "--store STORE" in command
    assert "of the store with fingerprint" in said
    (tmp_path / "s" / "metrics.json").unlink()
    commands, [unknown] = trainings(store, [], str(tmp_path / "s"))
    assert commands == []
    assert "is not known" in unknown
