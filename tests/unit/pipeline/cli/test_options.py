"""Options that commands share reach what they are meant for."""

from __future__ import annotations

from dataclasses import fields

import pytest
from typer.testing import CliRunner

import pipeline.oracle.build
import selector.evaluation.run
from pipeline.cli import app
from pipeline.config import RunConfig

ASKED = {
    "--workers": ("workers", 2),
    "--gpus-per-worker": ("gpus_per_worker", 0.5),
    "--batch-size": ("batch_size", 3),
    "--decode-workers": ("decode_workers", 4),
    "--threads": ("threads_per_worker", 5),
    "--device": ("device", "cuda:1"),
    "--address": ("ray_address", "auto"),
    "--decode-timeout": ("decode_timeout_s", 6.0),
    "--shard-timeout": ("shard_timeout_s", 7.0),
    "--max-attempts": ("max_attempts", 8),
}
FLAGS = {
    "--accept-classes": "accept_classes",
    "--accept-missing": "accept_missing",
    "--accept-killed": "accept_killed",
}
COMMANDS = {
    "build-oracle": (pipeline.oracle.build, "build", "--store"),
    "evaluate": (selector.evaluation.run, "evaluate", "--out"),
}


class Called(Exception):
    """Instead of the run."""


@pytest.fixture(params=COMMANDS)
def run_config_of(request, monkeypatch, tmp_path):
    """The settings that a command runs with."""
    module, name, where = COMMANDS[request.param]

    def called(asked, out, run_config, **options):
        raise Called(run_config)

    monkeypatch.setattr(module, name, called)

    def run(*arguments):
        needed = [request.param, "--data-root", "videos", where, str(tmp_path / "out")]
        result = CliRunner().invoke(app, [*needed, *arguments])
        assert isinstance(result.exception, Called), result.output
        return result.exception.args[0]

    return run


def test_every_setting_of_a_run_can_be_given(run_config_of):
    arguments = [text for option, (_, value) in ASKED.items() for text in (option, str(value))]
    wanted = dict(ASKED.values()) | dict.fromkeys(FLAGS.values(), True)
    assert run_config_of(*arguments, *FLAGS) == RunConfig(data_root="videos", **wanted)


def test_without_options_a_run_has_the_defaults(run_config_of):
    assert run_config_of() == RunConfig(data_root="videos")


def test_no_setting_is_forgotten():
    without_option = {"data_root", "max_pixels", "max_frames", "known_videos", "backbone_commit"}
    assert {name for name, _ in ASKED.values()} | set(FLAGS.values()) | without_option == {
        field.name for field in fields(RunConfig)
    }
