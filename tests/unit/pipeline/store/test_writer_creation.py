"""Creating a store, continuing it, and keeping a second run out."""

from __future__ import annotations

import fcntl
import json
import logging
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import zarr

from pipeline.clips.grid import TokenGrid
from pipeline.errors import ConfigError, StoreError, StoreMismatchError
from pipeline.store import layout
from pipeline.store.info import StoreInfo
from pipeline.store.lock import writing
from pipeline.store.reader import open_store
from pipeline.store.root import Root
from pipeline.store.seal import BLANK, seal
from pipeline.store.writer import create_store
from tests.stores import (
    GRID,
    HIDDEN_SIZE,
    LABEL_NAMES,
    begin_store,
    file_hashes,
    make_config,
    make_plan,
    make_store,
)


def test_store_json_holds_no_clock_host_or_place(tmp_path: Path) -> None:
    make_store(tmp_path / "s", 4)
    content = json.loads((tmp_path / "s" / "store.json").read_text())
    assert set(content) == {
        "schema_version",
        "fingerprint",
        "config",
        "token_grid",
        "hidden_size",
        "num_clips",
        "num_shards",
        "label_names",
        "libraries",
        "files",
        "seal",
    }
    assert str(tmp_path) not in json.dumps(content)
    assert content["libraries"]["zarr"] == zarr.__version__


def test_another_configuration_is_refused_with_every_difference(tmp_path: Path) -> None:
    begin_store(tmp_path / "s").close()
    before = file_hashes(tmp_path / "s")
    other = make_config(method="hirescam", decoder="decord", backbone="elsewhere")
    with pytest.raises(StoreMismatchError) as caught:
        create_store(
            str(tmp_path / "s"), other, make_plan(9, 4), TokenGrid(2, 3, 5), 7, ["pushing", "x"]
        )
    lines = str(caught.value).splitlines()
    assert lines[0] == (f"{tmp_path}/s was begun by another configuration (stored -> asked for):")
    assert "  decoder: pyav -> decord" in lines
    assert "  method: gradcam -> hirescam" in lines
    assert "  token_grid: (2, 3, 4) -> (2, 3, 5)" in lines
    assert "  hidden_size: 6 -> 7" in lines
    assert "  num_clips: 10 -> 9" in lines
    assert "  label_names: 3 names -> 2 names; class 1 is 'x', was 'pulling'" in lines
    assert any(line.startswith("  plan_digest: ") and "--limit" in line for line in lines)
    assert "backbone:" not in str(caught.value)  # where the weights lie is not their identity
    assert "choose another folder" in lines[-1]
    assert file_hashes(tmp_path / "s") == before


def test_the_lock_is_free_again_after_a_refusal(tmp_path: Path) -> None:
    begin_store(tmp_path / "s").close()
    with pytest.raises(StoreMismatchError):
        begin_store(tmp_path / "s", seed=1)
    begin_store(tmp_path / "s").close()


def test_a_newer_library_is_warned_about(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    begin_store(tmp_path / "s").close()
    path = tmp_path / "s" / "store.json"
    info = StoreInfo.from_json(path.read_bytes(), "")
    older = dict(info.libraries) | {"torch": "1.0"}
    path.write_bytes(replace(info, libraries=older).to_json())
    with caplog.at_level(logging.WARNING):
        begin_store(tmp_path / "s").close()
    assert any("begun with torch 1.0 and goes on with" in text for text in caplog.messages)


def test_a_future_schema_is_refused(tmp_path: Path) -> None:
    begin_store(tmp_path / "s").close()
    path = tmp_path / "s" / "store.json"
    content = json.loads(path.read_text()) | {"schema_version": 3, "seal": BLANK}
    path.write_bytes(seal(json.dumps(content).encode()))
    for opening in (lambda: begin_store(tmp_path / "s"), lambda: open_store(tmp_path / "s")):
        with pytest.raises(StoreError, match="schema version 3, this release reads 2: update"):
            opening()


def test_a_whole_store_with_foreign_fields_is_not_called_damaged(tmp_path: Path) -> None:
    begin_store(tmp_path / "s").close()
    path = tmp_path / "s" / "store.json"
    content = json.loads(path.read_text())
    content["config"]["tokens_per_clip"] = content["config"].pop("embeddings_per_clip")
    changed = json.dumps(content | {"seal": BLANK}, indent=2) + "\n"
    path.write_bytes(seal(changed.encode()))
    with pytest.raises(StoreError, match="is whole, but .*between two releases.*tokens_per_clip"):
        open_store(str(tmp_path / "s"))


def test_a_store_of_the_first_schema_is_to_be_built_again(tmp_path: Path) -> None:
    begin_store(tmp_path / "s").close()
    path = tmp_path / "s" / "store.json"
    path.write_text(path.read_text().replace('"schema_version": 2', '"schema_version": 1'))
    for opening in (lambda: begin_store(tmp_path / "s"), lambda: open_store(tmp_path / "s")):
        with pytest.raises(
            StoreError, match="run `lite-pipeline build-oracle --store` with the opt"
        ):
            opening()


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(StoreError, match=r"no store and not empty \(found thesis.tex\)"):
        begin_store(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_folder_that_is_to_be_shared_may_be_empty_but_for_that(tmp_path: Path) -> None:
    for name in (".git/HEAD", ".gitattributes", "README.md", "LICENSE", ".DS_Store"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("mine")
    assert make_store(tmp_path, 4).summary() == {"ok": 4, "pending": 0}
    assert (tmp_path / ".git/HEAD").read_text() == "mine"


def test_committed_shards_without_store_json_are_never_overwritten(tmp_path: Path) -> None:
    make_store(tmp_path / "s", 4)
    (tmp_path / "s" / "store.json").unlink()
    before = file_hashes(tmp_path / "s")
    with pytest.raises(StoreError, match=r"holds committed shards but no store\.json"):
        begin_store(tmp_path / "s", 4)
    assert file_hashes(tmp_path / "s") == before


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (make_plan(0, 4), "lists no clips"),
        (make_plan(10, 5), r"clip_id // 4"),
        (make_plan(10, 4).slice(1), "count 0, 1, 2"),
        (make_plan(10, 4).drop_columns(["crop"]), "columns of PLAN_SCHEMA"),
    ],
)
def test_a_plan_that_is_none_is_refused(tmp_path: Path, plan: Any, message: str) -> None:
    with pytest.raises(StoreError, match=message):
        create_store(str(tmp_path / "s"), make_config(), plan, GRID, HIDDEN_SIZE, LABEL_NAMES)
    assert not (tmp_path / "s").exists()


def test_more_embeddings_than_tokens_is_refused_before_anything_is_written(
    tmp_path: Path,
) -> None:
    with pytest.raises(ConfigError, match="more than the 24 tokens"):
        begin_store(tmp_path / "s", embeddings_per_clip=99)
    assert not (tmp_path / "s").exists()


def test_a_slow_shard_size_is_warned_about(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    begin_store(tmp_path / "s", shard_size=101).close()
    assert any("a multiple of 64 is better" in text for text in caplog.messages)


def test_two_runs_at_once_are_refused(tmp_path: Path) -> None:
    with begin_store(tmp_path / "s"), pytest.raises(StoreError) as caught:
        begin_store(tmp_path / "s")
    assert re.search(r"another run is writing .*/s \(process \d+ on .+\)", str(caught.value))
    begin_store(tmp_path / "s").close()


def test_a_dead_run_holds_no_lock(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys\n"
        "from pipeline.store.lock import StoreLock\n"
        "from pipeline.store.root import Root\n"
        "lock = StoreLock(Root(sys.argv[1]))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "s")], check=False)
    assert done.returncode == -9
    begin_store(tmp_path / "s").close()


def test_a_shard_is_written_by_one_process_at_a_time(tmp_path: Path) -> None:
    """A worker that outlived its driver is waited for, shard by shard; until it is dead."""
    script = (
        "import sys\n"
        "from pipeline.store.lock import writing\n"
        "from pipeline.store.root import Root\n"
        "with writing(Root(sys.argv[1]), 5):\n"
        "    print('held', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as orphan:
        assert orphan.stdout is not None
        assert orphan.stdout.readline() == b"held\n"
        with (tmp_path / layout.WRITERS_LOCK).open("r+") as file:
            for start, length in ((5, 1), (0, 0)):  # its shard, and all of them
                with pytest.raises(BlockingIOError):
                    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, length, start)
        with writing(Root(tmp_path), 4):
            pass
        orphan.kill()
    with writing(Root(tmp_path)):
        pass


def test_a_run_that_ends_well_leaves_no_rubbish_of_workers_that_died(tmp_path: Path) -> None:
    rubbish = tmp_path / "s" / "oracle.zarr" / "cam" / f".c.0.0.0.0.{'1234' * 8}.tmp"
    with begin_store(tmp_path / "s"):
        rubbish.write_bytes(b"half")
    assert not rubbish.exists()

    def interrupted() -> None:
        with begin_store(tmp_path / "s"):
            rubbish.write_bytes(b"half")
            raise KeyboardInterrupt  # its workers may still be writing: the next run tidies up

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert rubbish.exists()
    begin_store(tmp_path / "s").close()
    assert not rubbish.exists()
