"""A command that is written out makes the same store and the same evaluation again."""

from __future__ import annotations

import shlex
from pathlib import Path

from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.store.reader import open_store
from selector.evaluation.files import Evaluation
from selector.report.commands import build_command, evaluate_command
from tests.builds import make_dataset, run_build
from tests.evaluations import run_evaluation


def again(command: str) -> None:
    words = shlex.split(command.replace("\\\n", " "))
    assert words[0] == "lite-pipeline"
    result = CliRunner().invoke(app, [*words[1:], "--decode-workers", "0"])
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
    again(build_command(config, str(tmp_path / "other store"), str(data)))
    assert open_store(tmp_path / "other store").config.fingerprint() == config.fingerprint()

    options = {"gflops": (0.00015,), "keep_ratios": (0.7, 0.5)}
    first = run_evaluation(tmp_path / "e", data, tiny_backbone, "random,oracle", **options)
    config = first.evaluation.config
    again(evaluate_command(config, str(tmp_path / "e2"), str(data)))
    assert Evaluation(str(tmp_path / "e2")).config.fingerprint() == config.fingerprint()
