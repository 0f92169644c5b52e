"""Committing shards: what is written, how it is encoded, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.clips.grid import TokenGrid
from pipeline.errors import ClipStatus, StoreError
from pipeline.store import layout
from pipeline.store.inventory import remove_leftovers
from pipeline.store.reader import Store, open_store
from pipeline.store.shard_writer import ShardWriter
from pipeline.store.tables import parquet_bytes
from pipeline.store.verify import verify_store
from tests.stores import (
    begin_store,
    file_hashes,
    make_result,
    make_store,
)


@pytest.mark.parametrize(
    ("num_clips", "shard_size", "embeddings_per_clip"),
    [(10, 4, 5), (3, 256, 5), (130, 100, 0), (7, 7, -1), (5, 1, 1), (129, 67, 5)],
)
def test_what_is_written_is_read_back(
    tmp_path: Path, num_clips: int, shard_size: int, embeddings_per_clip: int
) -> None:
    failed = {num_clips - 1: ClipStatus.TOO_SHORT}
    store = make_store(
        tmp_path / "s",
        num_clips,
        failed=failed,
        shard_size=shard_size,
        embeddings_per_clip=embeddings_per_clip,
    )
    assert store.shards() == list(range(-(-num_clips // shard_size)))
    for shard in store.shards():
        expected = make_result(store, shard, failed)
        got = store.read_shard(shard)
        np.testing.assert_array_equal(got.scores, expected.scores)
        scale = got.clips["cam_scale"].to_numpy()[:, None, None, None]
        np.testing.assert_allclose(got.cam, expected.cam.astype(np.float32) * scale)
        if embeddings_per_clip == 0:
            assert got.embeddings is None
            assert got.embedding_index is None
        else:
            assert expected.embeddings is not None
            assert expected.embedding_index is not None
            np.testing.assert_array_equal(got.embeddings, expected.embeddings)
            np.testing.assert_array_equal(got.embedding_index, expected.embedding_index)
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
    # Which every reader knows, and no page is plain but that of the dictionary.
    assert set(score.encodings) == {"PLAIN", "RLE", "RLE_DICTIONARY"}
    scores = tiny_store.tokens()["score"].to_numpy()
    np.testing.assert_array_equal(scores, scores.astype(np.float16).astype(np.float32))


def test_a_token_costs_two_bytes() -> None:
    """The coordinates are almost free."""
    n = np.arange(300_000)
    scores = (np.random.default_rng(0).random(len(n)) ** 8).astype(np.float16)
    columns = [n // 1568, n * 0, n // 196 % 8, n // 14 % 14, n % 14, scores.astype(np.float32)]
    table = pa.table(columns, names=layout.TOKENS_SCHEMA.names).cast(layout.TOKENS_SCHEMA)
    assert len(parquet_bytes(table)) / len(n) < 1.95


def test_one_row_group_even_beyond_pyarrows_limit(tmp_path: Path) -> None:
    grid = TokenGrid(16, 32, 32)  # 16384 tokens: 65 clips are more than 2^20 rows
    make_store(tmp_path / "s", 65, grid=grid, shard_size=65, embeddings_per_clip=0, hidden_size=1)
    assert pq.read_metadata(tmp_path / "s" / layout.tokens_path(0)).num_row_groups == 1


def test_zarr_is_readable_by_others(tiny_store: Store) -> None:
    xarray = pytest.importorskip("xarray")
    data = xarray.open_zarr(
        f"{tiny_store.root}/oracle.zarr", consolidated=False, chunks=None, mask_and_scale=False
    )
    assert data["scores"].dims == ("clip", "t", "y", "x")
    assert data["embeddings"].dims == ("clip", "k", "d")
    assert data["scores"].dtype == np.float16
    assert bool(np.isnan(data["scores"][3]).all())
    assert "NaN: failed" in data["scores"].attrs["description"]


def test_an_uncommitted_shard_does_not_exist_for_readers(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s", 10)
    store.root.remove(layout.clips_path(1))
    assert store.shards() == [0, 2]
    assert store.clips()["clip_id"].tolist() == [0, 1, 2, 3, 8, 9]
    assert set(store.tokens()["clip_id"]) == {0, 1, 2, 3, 8, 9}
    assert store.summary() == {"ok": 6, "pending": 4}


def test_leftovers_go_and_nothing_else(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s", 10)
    root = store.root
    sound = file_hashes(tmp_path / "s")
    root.remove(layout.clips_path(2))  # as if killed between the token table and the commit
    left = [
        f"clips/.shard-00002.parquet.{'01' * 16}.tmp",
        f"oracle.zarr/cam/.c.2.0.0.0.{'2f' * 16}.tmp",
        "oracle.zarr/cam/c.2.0.0.0",
        "oracle.zarr/embedding_index/c.2.0",
        "oracle.zarr/embeddings/c.2.0.0",
        "oracle.zarr/scores/c.2.0.0.0",
        "tokens/shard-00002.parquet",
    ]
    theirs = ["tokens/my-notes.csv", ".git/HEAD", "README.md", ".x.tmp", "clips/.x.0.tmp"]
    for path in [*left[:2], *theirs]:
        (tmp_path / "s" / path).parent.mkdir(exist_ok=True)
        (tmp_path / "s" / path).write_bytes(b"half")
    assert remove_leftovers(root, store.info) == left
    for path in theirs:
        (tmp_path / "s" / path).unlink()
    gone = {*left, "clips/shard-00002.parquet"}
    assert file_hashes(tmp_path / "s") == {k: v for k, v in sound.items() if k not in gone}
    make_store(tmp_path / "s", 10)
    assert file_hashes(tmp_path / "s") == sound


@pytest.mark.parametrize("array", ["scores", "cam", "embeddings", "embedding_index"])
@pytest.mark.parametrize("shard", [0, 2])
def test_a_damaged_array_file_does_not_stop_its_own_repair(
    tmp_path: Path, array: str, shard: int
) -> None:
    store = make_store(tmp_path / "s", 10)
    sound = file_hashes(tmp_path / "s")
    spec = next(spec for spec in store.info.arrays if spec.name == array)
    (tmp_path / "s" / spec.chunk_key(shard)).write_bytes(b"garbage")
    ShardWriter(store.root).write(shard, make_result(store, shard))
    assert file_hashes(tmp_path / "s") == sound


def test_results_that_break_the_rules_are_not_committed(tmp_path: Path) -> None:
    with begin_store(tmp_path / "s") as writer:
        root = writer.root
        for shard, change, message in [
            (0, "unset", r"rows \[1\] of it have no outcome"),
            (0, "nan", "numbers exactly where the clip is ok"),
            (0, "range", r"scores must lie in \[0, 1\]"),
            (0, "index", "ascending token numbers"),
            (0, "shape", r"embeddings is \(4, 5, 9\) instead of \(4, 5, 6\)"),
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
                assert result.embedding_index is not None
                result.embedding_index[2] = [0, 1, 3, 3, 4]
            elif change == "shape":
                result.arrays["embeddings"] = np.zeros((4, 5, 9), np.float16)
            else:
                result = make_result(writer, 0)
            with pytest.raises(StoreError, match=message):
                ShardWriter(root).write(shard, result)
        with pytest.raises(StoreError, match="shard 3 does not exist: the plan has 3"):
            ShardWriter(root).write(3, make_result(writer, 0))
        assert writer.committed() == []
        assert writer.pending() == [0, 1, 2]


def test_plan_columns_come_from_the_frozen_plan(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s", 10)
    part = ShardWriter(store.root).plan(1)
    assert part["clip_id"].to_pylist() == [4, 5, 6, 7]
    pd.testing.assert_frame_equal(store.clips(layout.PLAN_SCHEMA.names), store.plan())


def test_a_store_below_a_hive_like_folder_gains_no_columns(tmp_path: Path) -> None:
    """A store is not begun there, but one may be moved."""
    make_store(tmp_path / "s", 10)
    (tmp_path / "label=9").mkdir()
    (tmp_path / "s").rename(tmp_path / "label=9" / "s")
    store = open_store(tmp_path / "label=9" / "s")
    assert store.clips(["label"])["label"].tolist()[:4] == [0, 1, 2, 0]
    assert set(store.tokens(columns=["label"])["label"]) == {0, 1, 2}
    assert [p.what for p in verify_store(store.root)] == [
        "DuckDB takes 'label=9' above the store for a column"
    ]
