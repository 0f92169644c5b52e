"""Creating, continuing and committing."""

from __future__ import annotations

import fcntl
import json
import logging
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr

from pipeline.errors import ClipStatus, ConfigError, StoreError, StoreMismatchError
from pipeline.grid import TokenGrid
from pipeline.plan import plan_digest
from pipeline.store import layout
from pipeline.store.lock import writing
from pipeline.store.reader import Store, open_store
from pipeline.store.root import Root
from pipeline.store.tables import parquet_bytes
from pipeline.store.verify import verify_store
from pipeline.store.writer import (
    StoreWriter,
    committed_shards,
    create_store,
    load_result,
    read_plan,
    remove_leftovers,
    select_retry,
    write_shard,
)
from tests.stores import (
    GRID,
    HIDDEN_SIZE,
    LABEL_NAMES,
    file_hashes,
    make_config,
    make_plan,
    make_result,
    make_store,
)


def begin(path: Path, num_clips: int = 10, **changes: Any) -> StoreWriter:
    config = make_config(**changes)
    plan = make_plan(num_clips, config.shard_size)
    config = replace(config, plan_digest=plan_digest(plan))
    return create_store(str(path), config, plan, GRID, HIDDEN_SIZE, LABEL_NAMES)


@pytest.mark.parametrize(
    ("num_clips", "shard_size", "tokens_per_clip"),
    [(10, 4, 5), (3, 256, 5), (130, 100, 0), (7, 7, -1), (5, 1, 1), (129, 67, 5)],
)
def test_what_is_written_is_read_back(
    tmp_path: Path, num_clips: int, shard_size: int, tokens_per_clip: int
) -> None:
    failed = {num_clips - 1: ClipStatus.TOO_SHORT}
    store = make_store(
        tmp_path / "s",
        num_clips,
        failed=failed,
        shard_size=shard_size,
        tokens_per_clip=tokens_per_clip,
    )
    assert store.shards() == list(range(-(-num_clips // shard_size)))
    for shard in store.shards():
        expected = make_result(store, shard, failed)
        got = store.read_shard(shard)
        np.testing.assert_array_equal(got.scores, expected.scores)
        scale = got.clips["cam_scale"].to_numpy()[:, None, None, None]
        np.testing.assert_allclose(got.cam, expected.cam.astype(np.float32) * scale)
        if tokens_per_clip == 0:
            assert got.tokens is None
            assert got.token_index is None
        else:
            assert expected.tokens is not None
            assert expected.token_index is not None
            np.testing.assert_array_equal(got.tokens, expected.tokens)
            np.testing.assert_array_equal(got.token_index, expected.token_index)
    assert verify_store(store.root) == []


def test_equal_inputs_give_equal_bytes_whatever_the_order(tmp_path: Path) -> None:
    failed = {3: ClipStatus.DECODE_ERROR, 8: ClipStatus.MISSING_FILE}
    make_store(tmp_path / "a", 10, failed=failed)
    make_store(tmp_path / "b", 10, failed=failed, shards=[2, 0, 1])
    make_store(tmp_path / "c", 10, failed=failed, shards=[1])
    make_store(tmp_path / "c", 10, failed=failed)  # a second run does the rest
    hashes = file_hashes(tmp_path / "a")
    assert len(hashes) == 3 + 4 + 3 * (4 + 2)  # 3 in all, 4 arrays; 3 shards of 6 files
    assert file_hashes(tmp_path / "b") == hashes
    assert file_hashes(tmp_path / "c") == hashes


def test_a_shard_of_failures_is_whole_too(tmp_path: Path) -> None:
    failed = dict.fromkeys(range(4), ClipStatus.MISSING_FILE)
    store = make_store(tmp_path / "s", 10, failed=failed)
    assert verify_store(store.root) == []
    assert (tmp_path / "s" / "oracle.zarr" / "scores" / "c.0.0.0.0").is_file()
    assert len(pd.read_parquet(tmp_path / "s" / "tokens" / layout.shard_name(0))) == 0
    # The empty table must not spoil the types of the folder read as one.
    tokens = pd.read_parquet(tmp_path / "s" / "tokens")
    assert str(tokens["score"].dtype) == "float32"
    clips = pd.read_parquet(tmp_path / "s" / "clips")
    assert clips["clip_id"].tolist() == list(range(10))


def test_token_table_encoding(tiny_store: Store) -> None:
    meta = pq.read_metadata(tiny_store.root.join(layout.tokens_path(0)))
    assert meta.num_row_groups == 1
    score = meta.row_group(0).column(5)
    assert score.path_in_schema == "score"
    assert score.physical_type == "FLOAT"
    assert score.compression == "ZSTD"
    assert "BYTE_STREAM_SPLIT" in score.encodings
    scores = tiny_store.tokens()["score"].to_numpy()
    np.testing.assert_array_equal(scores, scores.astype(np.float16).astype(np.float32))


def test_a_token_costs_two_bytes() -> None:
    """The coordinates are almost free; with PyArrow's default pages it would be 2.13."""
    n = np.arange(300_000)
    scores = (np.random.default_rng(0).random(len(n)) ** 8).astype(np.float16)
    columns = [n // 1568, n * 0, n // 196 % 8, n // 14 % 14, n % 14, scores.astype(np.float32)]
    table = pa.table(columns, names=layout.TOKENS_SCHEMA.names).cast(layout.TOKENS_SCHEMA)
    assert len(parquet_bytes(table)) / len(n) < 1.95


def test_one_row_group_even_beyond_pyarrows_limit(tmp_path: Path) -> None:
    grid = TokenGrid(16, 32, 32)  # 16384 tokens: 65 clips are more than 2^20 rows
    make_store(tmp_path / "s", 65, grid=grid, shard_size=65, tokens_per_clip=0, hidden_size=1)
    assert pq.read_metadata(tmp_path / "s" / layout.tokens_path(0)).num_row_groups == 1


def test_zarr_is_readable_by_others(tiny_store: Store) -> None:
    xarray = pytest.importorskip("xarray")
    data = xarray.open_zarr(
        f"{tiny_store.root}/oracle.zarr", consolidated=False, chunks=None, mask_and_scale=False
    )
    assert data["scores"].dims == ("clip", "t", "y", "x")
    assert data["tokens"].dims == ("clip", "k", "d")
    assert data["scores"].dtype == np.float16
    assert bool(np.isnan(data["scores"][3]).all())
    assert "NaN: failed" in data["scores"].attrs["description"]


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
    }
    assert str(tmp_path) not in json.dumps(content)
    assert content["libraries"]["zarr"] == zarr.__version__


# Continuing


def test_another_configuration_is_refused_with_every_difference(tmp_path: Path) -> None:
    begin(tmp_path / "s").close()
    before = file_hashes(tmp_path / "s")
    other = make_config(method="hirescam", decoder="decord", backbone="elsewhere")
    with pytest.raises(StoreMismatchError) as caught:
        create_store(
            str(tmp_path / "s"), other, make_plan(9, 4), TokenGrid(2, 3, 5), 7, ["pushing", "x"]
        )
    lines = str(caught.value).splitlines()
    assert lines[0] == (f"{tmp_path}/s was built by another configuration (stored -> asked for):")
    assert "  decoder: pyav -> decord" in lines
    assert "  method: gradcam -> hirescam" in lines
    assert "  grid: (2, 3, 4) -> (2, 3, 5)" in lines
    assert "  hidden_size: 6 -> 7" in lines
    assert "  num_clips: 10 -> 9" in lines
    assert "  label_names: 3 names -> 2 names; class 1 is 'x', was 'pulling'" in lines
    assert any(line.startswith("  plan_digest: ") and "--limit" in line for line in lines)
    assert "backbone" not in str(caught.value)  # where the weights lie is not their identity
    assert "build into another folder" in lines[-1]
    assert file_hashes(tmp_path / "s") == before


def test_the_lock_is_free_again_after_a_refusal(tmp_path: Path) -> None:
    begin(tmp_path / "s").close()
    with pytest.raises(StoreMismatchError):
        begin(tmp_path / "s", seed=1)
    begin(tmp_path / "s").close()


def test_a_newer_library_is_warned_about(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    begin(tmp_path / "s").close()
    path = tmp_path / "s" / "store.json"
    path.write_text(re.sub(r'"torch": "[^"]*"', '"torch": "1.0"', path.read_text()))
    with caplog.at_level(logging.WARNING):
        begin(tmp_path / "s").close()
    assert any("begun with torch 1.0 and goes on with" in text for text in caplog.messages)


def test_a_future_schema_is_refused(tmp_path: Path) -> None:
    begin(tmp_path / "s").close()
    path = tmp_path / "s" / "store.json"
    path.write_text(path.read_text().replace('"schema_version": 1', '"schema_version": 2'))
    for opening in (lambda: begin(tmp_path / "s"), lambda: open_store(tmp_path / "s")):
        with pytest.raises(StoreError, match="schema version 2, this release reads up to 1"):
            opening()


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(StoreError, match=r"no store and not empty \(found thesis.tex\)"):
        begin(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_committed_shards_without_store_json_are_never_overwritten(tmp_path: Path) -> None:
    make_store(tmp_path / "s", 4)
    (tmp_path / "s" / "store.json").unlink()
    before = file_hashes(tmp_path / "s")
    with pytest.raises(StoreError, match=r"holds committed shards but no store\.json"):
        begin(tmp_path / "s", 4)
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
        begin(tmp_path / "s", tokens_per_clip=99)
    assert not (tmp_path / "s").exists()


def test_a_slow_shard_size_is_warned_about(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    begin(tmp_path / "s", shard_size=101).close()
    assert any("a multiple of 64 is better" in text for text in caplog.messages)


# Two runs


def test_two_runs_at_once_are_refused(tmp_path: Path) -> None:
    with begin(tmp_path / "s"), pytest.raises(StoreError) as caught:
        begin(tmp_path / "s")
    assert re.search(r"another run is writing .*/s \(process \d+ on .+\)", str(caught.value))
    begin(tmp_path / "s").close()


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
    begin(tmp_path / "s").close()


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


# Committing


def test_an_uncommitted_shard_does_not_exist_for_readers(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s", 10)
    store.root.remove(layout.clips_path(1))
    assert store.shards() == [0, 2]
    assert store.clips()["clip_id"].tolist() == [0, 1, 2, 3, 8, 9]
    assert set(store.tokens()["clip_id"]) == {0, 1, 2, 3, 8, 9}
    assert store.summary() == {"ok": 6, "pending": 4}


def test_leftovers_go_and_nothing_else(tmp_path: Path) -> None:
    make_store(tmp_path / "s", 10)
    root = Root(tmp_path / "s")
    sound = file_hashes(tmp_path / "s")
    root.remove(layout.clips_path(2))  # as if killed between the token table and the commit
    left = [
        "clips/.shard-00002.parquet.0123.tmp",
        "oracle.zarr/scores/c.2.0.0.0.4567.partial",
        "tokens/.shard-00002.parquet.89ab.tmp",
        "tokens/shard-00002.parquet",
    ]
    for path in left[:3]:
        (tmp_path / "s" / path).write_bytes(b"half")
    assert remove_leftovers(root) == left
    gone = {"tokens/shard-00002.parquet", "clips/shard-00002.parquet"}
    assert file_hashes(tmp_path / "s") == {k: v for k, v in sound.items() if k not in gone}
    make_store(tmp_path / "s", 10)
    assert file_hashes(tmp_path / "s") == sound


def test_a_run_that_ends_well_leaves_no_rubbish_of_workers_that_died(tmp_path: Path) -> None:
    rubbish = tmp_path / "s" / "oracle.zarr" / "cam" / "c.0.0.0.0.1234.partial"
    with begin(tmp_path / "s"):
        rubbish.write_bytes(b"half")
    assert not rubbish.exists()

    def interrupted() -> None:
        with begin(tmp_path / "s"):
            rubbish.write_bytes(b"half")
            raise KeyboardInterrupt  # its workers may still be writing: the next run tidies up

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert rubbish.exists()
    begin(tmp_path / "s").close()
    assert not rubbish.exists()


@pytest.mark.parametrize("array", ["scores", "cam", "tokens", "token_index"])
@pytest.mark.parametrize("shard", [0, 2])
def test_a_damaged_array_file_does_not_stop_its_own_repair(
    tmp_path: Path, array: str, shard: int
) -> None:
    store = make_store(tmp_path / "s", 10)
    sound = file_hashes(tmp_path / "s")
    spec = next(spec for spec in store.info.arrays if spec.name == array)
    (tmp_path / "s" / spec.chunk_key(shard)).write_bytes(b"garbage")
    write_shard(store.root, shard, make_result(store, shard))
    assert file_hashes(tmp_path / "s") == sound


def test_results_that_break_the_rules_are_not_committed(tmp_path: Path) -> None:
    with begin(tmp_path / "s") as writer:
        root = writer.root
        for shard, change, message in [
            (0, "unset", r"rows \[1\] of it have no outcome"),
            (0, "nan", "numbers exactly where the clip is ok"),
            (0, "range", r"scores must lie in \[0, 1\]"),
            (0, "index", "ascending token numbers"),
            (0, "shape", r"tokens is \(4, 5, 9\) instead of \(4, 5, 6\)"),
            (2, "long", "4 clips instead of 2"),
        ]:
            result = make_result(writer, shard)
            if change == "unset":
                result.clips[1] = None
            elif change == "nan":
                result.scores[2, 0, 0, 0] = np.nan
            elif change == "range":
                result.scores[2, 0, 0, 0] = 1.5
            elif change == "index":
                assert result.token_index is not None
                result.token_index[2] = [0, 1, 3, 3, 4]
            elif change == "shape":
                result.tokens = np.zeros((4, 5, 9), np.float16)
            else:
                result = make_result(writer, 0)
            with pytest.raises(StoreError, match=message):
                write_shard(root, shard, result)
        with pytest.raises(StoreError, match="shard 3 does not exist: the plan has 3"):
            write_shard(root, 3, make_result(writer, 0))
        assert writer.committed() == set()
        assert writer.pending() == [0, 1, 2]


def test_plan_columns_come_from_the_frozen_plan(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s", 10)
    assert read_plan(store.root).num_rows == 10
    part = read_plan(store.root, 1)
    assert part["clip_id"].to_pylist() == [4, 5, 6, 7]
    pd.testing.assert_frame_equal(store.clips(layout.PLAN_SCHEMA.names), store.plan())


def test_a_store_below_a_hive_like_folder_gains_no_columns(tmp_path: Path) -> None:
    store = make_store(tmp_path / "label=9" / "s", 10)
    assert store.clips(["label"])["label"].tolist()[:4] == [0, 1, 2, 0]
    assert verify_store(store.root) == []


# Retrying


def test_select_retry_finds_the_shards_of_a_failure(tmp_path: Path) -> None:
    failed = {3: ClipStatus.DECODE_ERROR, 5: ClipStatus.MISSING_FILE, 6: ClipStatus.DECODE_ERROR}
    root = make_store(tmp_path / "s", 10, failed=failed).root
    assert select_retry(root) == [0, 1]
    assert select_retry(root, ["missing_file"]) == [1]
    assert select_retry(root, ["decode_error", "missing_file"]) == [0, 1]
    assert select_retry(root, [ClipStatus.TOO_LARGE]) == []
    with pytest.raises(StoreError, match="no failure is called 'ok'; one of missing_file"):
        select_retry(root, ["ok"])


def test_a_retry_that_succeeds_gives_the_store_of_a_run_that_never_failed(tmp_path: Path) -> None:
    make_store(tmp_path / "good", 10)
    store = make_store(tmp_path / "s", 10, failed={5: ClipStatus.MISSING_FILE})
    result = load_result(store.root, 1)
    fresh = make_result(store, 1)
    for name in ("scores", "cam", "tokens", "token_index"):
        getattr(result, name)[1] = getattr(fresh, name)[1]
    result.clips[1] = fresh.clips[1]
    write_shard(store.root, 1, result)
    assert file_hashes(tmp_path / "s") == file_hashes(tmp_path / "good")


def test_a_loaded_shard_written_back_is_the_same_bytes(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s", 10, failed={5: ClipStatus.MISSING_FILE}, degenerate=(6,))
    before = file_hashes(tmp_path / "s")
    for shard in store.shards():
        write_shard(store.root, shard, load_result(store.root, shard))
    assert file_hashes(tmp_path / "s") == before
    store.root.remove(layout.clips_path(2))
    with pytest.raises(StoreError, match=r"clips/shard-00002\.parquet is missing"):
        load_result(store.root, 2)


# Crashes


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

    for name in ("put", "remove", "sync"):
        monkeypatch.setattr(Root, name, counted(getattr(Root, name)))
    monkeypatch.setattr(zarr.Array, "__setitem__", counted(zarr.Array.__setitem__))
    monkeypatch.setattr(zarr.Group, "create_array", counted(zarr.Group.create_array))
    return state


def test_a_run_cut_at_any_instant_is_completed_to_the_same_bytes(
    tmp_path: Path, cut_at: Any
) -> None:
    failed = {1: ClipStatus.DECODE_ERROR}
    make_store(tmp_path / "whole", 6, failed=failed, tokens_per_clip=0)
    sound = file_hashes(tmp_path / "whole")
    total = cut_at["seen"]
    assert total > 20
    for step in range(total):
        folder = tmp_path / "cut"
        cut_at["left"] = step
        with pytest.raises(PowerCut):
            make_store(folder, 6, failed=failed, tokens_per_clip=0)
        cut_at["left"] = -1
        # Whatever is visible is right; what is not committed is not visible.
        if (folder / "store.json").exists():
            for problem in verify_store(str(folder)):
                assert "shards (" in problem.what or "left by a killed run" in problem.remedy
        make_store(folder, 6, failed=failed, tokens_per_clip=0)
        assert file_hashes(folder) == sound, f"cut after {step} changes"
        shutil.rmtree(folder)


def test_a_retry_cut_at_any_instant_shows_no_mixture(tmp_path: Path, cut_at: Any) -> None:
    make_store(tmp_path / "before", 4, failed={1: ClipStatus.DECODE_ERROR})
    make_store(tmp_path / "after", 4)
    cut_at["seen"] = 0
    before = open_store(tmp_path / "before")
    write_shard(before.root, 0, make_result(before, 0))
    total = cut_at["seen"]
    for step in range(total):
        store = make_store(tmp_path / "s", 4, failed={1: ClipStatus.DECODE_ERROR})
        cut_at["left"] = step
        with pytest.raises(PowerCut):
            write_shard(store.root, 0, make_result(store, 0))
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
    left = [path for path in folder.rglob("*") if path.suffix in (".tmp", ".partial")]
    assert len(left) == 1
    assert committed_shards(Root(folder)) == {0}
    make_store(tmp_path / "whole", 6)
    make_store(folder, 6)
    assert file_hashes(folder) == file_hashes(tmp_path / "whole")
