"""Doing a shard again: because its clips failed, or because the run was cut off."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import ClipStatus, StoreError
from pipeline.store import layout
from pipeline.store.reader import open_store
from pipeline.store.root import Root
from pipeline.store.shard_writer import ShardWriter
from pipeline.store.verify import verify_store
from tests.stores import begin_store, file_hashes, make_result, make_store


def test_the_shards_of_a_failure_are_found(tmp_path: Path) -> None:
    failed = {3: ClipStatus.DECODE_ERROR, 5: ClipStatus.MISSING_FILE, 6: ClipStatus.DECODE_ERROR}
    make_store(tmp_path / "s", 10, failed=failed)
    with begin_store(tmp_path / "s", 10) as writer:
        assert writer.to_retry() == [0, 1]
        assert writer.to_retry(["missing_file"]) == [1]
        assert writer.to_retry(["decode_error", "missing_file"]) == [0, 1]
        assert writer.to_retry([ClipStatus.TOO_LARGE]) == []
        with pytest.raises(StoreError, match="no failure is called 'ok'; one of missing_file"):
            writer.to_retry(["ok"])


def test_a_retry_that_succeeds_gives_the_store_of_a_run_that_never_failed(tmp_path: Path) -> None:
    make_store(tmp_path / "good", 10)
    store = make_store(tmp_path / "s", 10, failed={5: ClipStatus.MISSING_FILE})
    result = ShardWriter(store.root).load(1)
    fresh = make_result(store, 1)
    for name in ("scores", "cam", "embeddings", "embedding_index"):
        getattr(result, name)[1] = getattr(fresh, name)[1]
    result.clips[1] = fresh.clips[1]
    ShardWriter(store.root).write(1, result)
    assert file_hashes(tmp_path / "s") == file_hashes(tmp_path / "good")


def test_a_loaded_shard_written_back_is_the_same_bytes(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s", 10, failed={5: ClipStatus.MISSING_FILE}, degenerate=(6,))
    before = file_hashes(tmp_path / "s")
    for shard in store.shards():
        ShardWriter(store.root).write(shard, ShardWriter(store.root).load(shard))
    assert file_hashes(tmp_path / "s") == before
    store.root.remove(layout.clips_path(2))
    assert ShardWriter(store.root).load(2) is None


class PowerCut(BaseException):
    """Nothing after it runs, as far as code that never catches BaseException is concerned."""


@pytest.fixture
def cut_at(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Cuts the power after the n-th change to the disk; returns a counter of changes."""
    state = {"left": -1, "seen": 0}

    def counted(method: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            if state["left"] == 0:
                raise PowerCut
            value = method(*args, **kwargs)
            state["left"] -= 1
            state["seen"] += 1
            return value

        return call

    for name in ("put", "remove"):
        monkeypatch.setattr(Root, name, counted(getattr(Root, name)))
    return state


def test_a_run_cut_at_any_instant_is_completed_to_the_same_bytes(
    tmp_path: Path, cut_at: Any
) -> None:
    failed = {1: ClipStatus.DECODE_ERROR}
    make_store(tmp_path / "whole", 6, failed=failed, embeddings_per_clip=0)
    sound = file_hashes(tmp_path / "whole")
    total = cut_at["seen"]
    assert total == 5 + 2 * 5  # files at the beginning; a removal and 4 files for each shard
    for step in range(total):
        folder = tmp_path / "cut"
        cut_at["left"] = step
        with pytest.raises(PowerCut):
            make_store(folder, 6, failed=failed, embeddings_per_clip=0)
        cut_at["left"] = -1
        # Whatever is visible is right; what is not committed is not visible.
        if (folder / "store.json").exists():
            for problem in verify_store(str(folder)):
                assert "shards (" in problem.what or "left by a killed run" in problem.what
        make_store(folder, 6, failed=failed, embeddings_per_clip=0)
        assert file_hashes(folder) == sound, f"cut after {step} changes"
        shutil.rmtree(folder)


def test_a_retry_cut_at_any_instant_shows_no_mixture(tmp_path: Path, cut_at: Any) -> None:
    make_store(tmp_path / "before", 4, failed={1: ClipStatus.DECODE_ERROR})
    make_store(tmp_path / "after", 4)
    cut_at["seen"] = 0
    before = open_store(tmp_path / "before")
    ShardWriter(before.root).write(0, make_result(before, 0))
    total = cut_at["seen"]
    for step in range(total):
        store = make_store(tmp_path / "s", 4, failed={1: ClipStatus.DECODE_ERROR})
        cut_at["left"] = step
        with pytest.raises(PowerCut):
            ShardWriter(store.root).write(0, make_result(store, 0))
        cut_at["left"] = -1
        if step == 0:
            assert store.summary() == {"ok": 3, "decode_error": 1, "pending": 0}
        else:
            assert store.summary() == {"ok": 0, "pending": 4}
        make_store(tmp_path / "s", 4)
        if step > 0:
            assert file_hashes(tmp_path / "s") == file_hashes(tmp_path / "after")
        shutil.rmtree(tmp_path / "s")


@pytest.mark.parametrize("victim", ["oracle.zarr/cam", "tokens/shard", "clips/shard"])
def test_sigkill_in_the_middle_of_a_file(tmp_path: Path, victim: str) -> None:
    """A real kill while a file is half written leaves a store that the next run completes."""
    script = f"""
import os, signal, sys
from pathlib import Path
replace = Path.replace
def deadly(self, target):
    if {victim!r} in str(target):
        os.kill(os.getpid(), signal.SIGKILL)
    return replace(self, target)
from tests.stores import make_store
make_store(sys.argv[1], 6, shards=[0])
Path.replace = deadly
make_store(sys.argv[1], 6)
"""
    folder = tmp_path / "cut"
    done = subprocess.run(
        [sys.executable, "-c", script, str(folder)],
        cwd=Path(__file__).parents[4],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == -9, done.stderr
    left = [path for path in folder.rglob("*") if path.suffix == ".tmp"]
    assert len(left) == 1
    assert open_store(folder).shards() == [0]
    make_store(tmp_path / "whole", 6)
    make_store(folder, 6)
    assert file_hashes(folder) == file_hashes(tmp_path / "whole")
