"""`lite-pipeline datasets`: what it prints and how it exits."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pipeline.cli import app

runner = CliRunner()


def _run(*arguments: object) -> Any:
    return runner.invoke(app, ["datasets", *map(str, arguments)])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """SSv2 with two classes and one missing video."""
    root = tmp_path / "data"
    (root / "videos").mkdir(parents=True)
    labels = {"Closing something": "0", "Dropping something": "1"}
    (root / "labels.json").write_text(json.dumps(labels))
    entries = [{"id": str(i), "template": "Closing [something]"} for i in range(3)]
    (root / "train.json").write_text(json.dumps(entries))
    for number in range(2):
        (root / "videos" / f"{number}.webm").write_bytes(b"video")
    return root


@pytest.fixture
def checkpoint(tmp_path: Path) -> Any:
    """Writes the configuration of a checkpoint with the given class names."""

    def write(*names: str) -> Path:
        folder = tmp_path / "checkpoint"
        folder.mkdir(exist_ok=True)
        config = {"id2label": {str(i): name for i, name in enumerate(names)}}
        (folder / "config.json").write_text(json.dumps(config))
        return folder

    return write


@pytest.mark.parametrize("arguments", [(), ("list",)])
def test_list_names_every_dataset(arguments: tuple[str, ...]) -> None:
    result = _run(*arguments)
    assert result.exit_code == 0
    for name in ("ssv2", "kinetics400", "ucf101", "hmdb51", "folder", "csv", "synthetic"):
        assert f"\n{name} " in result.output


@pytest.mark.parametrize("arguments", [("--json",), ("list", "--json")])
def test_list_as_json(arguments: tuple[str, ...]) -> None:
    specs = {spec["name"]: spec for spec in json.loads(_run(*arguments).output)}
    assert specs["ssv2"]["eval_views"] == [2, 3]
    assert specs["kinetics400"]["sampling"] == "stride:4"


def test_check_names_what_is_missing_and_still_succeeds(root: Path) -> None:
    result = _run("check", "ssv2", "--data-root", root)
    assert result.exit_code == 0, result.output
    assert "train: missing (1):\n  videos/2.webm\n" in result.output
    assert result.output.endswith("ready for a build\n")


def test_check_as_json(root: Path, checkpoint: Any) -> None:
    folder = checkpoint("Closing something", "Dropping something")
    result = _run("check", "ssv2", "--data-root", root, "--backbone", folder, "--json")
    report = json.loads(result.output)
    assert report["splits"]["train"]["videos"] == 3
    assert report["splits"]["train"]["missing_first"] == ["videos/2.webm"]
    assert report["checkpoint"]["verdict"] == "same_names_same_order"
    assert (report["obstacles"], report["ready"]) == ([], True)


def test_show_bounds_the_examples(root: Path) -> None:
    for path in (root / "videos").iterdir():
        path.unlink()
    (root / "videos" / "0.webm").write_bytes(b"video")
    one = _run("check", "ssv2", "--data-root", root, "--show", 1)
    assert "missing (2):\n  videos/1.webm\n  and 1 more\n" in one.output
    none = _run("check", "ssv2", "--data-root", root, "--show", 0)
    assert "missing (2)\n" in none.output
    assert "1.webm" not in none.output


def test_a_class_order_that_differs_fails_and_shows_where(root: Path, checkpoint: Any) -> None:
    folder = checkpoint("Dropping something", "Closing something")
    result = _run("check", "ssv2", "--data-root", root, "--backbone", folder)
    assert result.exit_code == 1
    assert "THE SAME NAMES IN ANOTHER ORDER" in result.output
    assert "0: dataset 'Closing something', checkpoint 'Dropping something'" in result.output


def test_another_number_of_classes_fails(root: Path, checkpoint: Any) -> None:
    folder = checkpoint("Closing something")
    result = _run("check", "ssv2", "--data-root", root, "--backbone", folder)
    assert result.exit_code == 1
    assert "dataset 2, checkpoint 1" in result.output


def test_an_unusable_line_fails_only_where_it_is_asked_for(root: Path) -> None:
    (root / "validation.json").write_text('[{"id": "9", "template": "Juggling"}]')
    result = _run("check", "ssv2", "--data-root", root)
    assert result.exit_code == 1
    assert "unknown label 'Juggling'" in result.output
    assert "would break a build: split 'validation' has 1 unusable line" in result.output
    assert _run("check", "ssv2", "--data-root", root, "--split", "train").exit_code == 0


def test_expected_errors_are_one_line(root: Path) -> None:
    for arguments in (
        ("check", "ssv3", "--data-root", root),
        ("check", "ssv2", "--data-root", root / "nowhere"),
        ("check", "ssv2", "--data-root", root, "--backbone", root),
    ):
        result = _run(*arguments)
        assert result.exit_code == 1
        assert result.stderr.startswith("error: ")
        assert result.stderr.count("\n") == 1


def test_a_users_yaml_is_a_dataset_too(root: Path, tmp_path: Path) -> None:
    spec = tmp_path / "mine.yaml"
    spec.write_text("name: mine\nformat: ssv2\nlabels: {names: [Closing something]}\n")
    assert f"mine in {root}: 1 classes" in _run("check", spec, "--data-root", root).output


def test_reading_a_dataset_imports_nothing_heavy() -> None:
    code = (
        "import sys, datasets_spec.check;"
        "print([m for m in ('torch', 'pandas', 'numpy', 'ray', 'pipeline') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_files_left_out_are_counted_per_reason_and_named(tmp_path: Path) -> None:
    for name in ("jump/a.mp4", "jump/b.gif", "jump/c.GIF", "walk/a.mp4", "walk/d.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    result = _run("check", "folder", "--data-root", tmp_path, "--show", 2)
    assert result.exit_code == 0
    assert "files that give no row: 2 ending .gif, 1 ending .txt\n" in result.output
    assert "  jump/b.gif: ending .gif\n  jump/c.GIF: ending .gif\n  and 1 more\n" in result.output
    assert "split that a build takes: all\n" in result.output
    report = json.loads(_run("check", "folder", "--data-root", tmp_path, "--json").output)
    assert report["skipped"]["by_reason"] == {"ending .gif": 2, "ending .txt": 1}
    assert report["built_by_default"] == "all"


@pytest.mark.parametrize(("accepted", "code"), [((), 1), (("--accept-classes",), 0)])
def test_names_that_disagree_may_be_accepted(
    root: Path, checkpoint: Any, accepted: tuple[str, ...], code: int
) -> None:
    folder = checkpoint("Closing something", "Opening something")
    result = _run("check", "ssv2", "--data-root", root, "--backbone", folder, *accepted)
    assert result.exit_code == code
    assert "SOME NAMES DIFFER" in result.output


def test_a_check_counts_shards_as_a_build_does() -> None:
    """`datasets_spec` imports nothing of the pipeline, so it has numbers of its own."""
    from datasets_spec.check import MISSING_SHARDS, SHARD_SIZE
    from pipeline.config import OracleConfig
    from pipeline.shards.scheduler import MAX_SHARDS_IN_DOUBT

    assert (OracleConfig.shard_size, MAX_SHARDS_IN_DOUBT) == (SHARD_SIZE, MISSING_SHARDS)
