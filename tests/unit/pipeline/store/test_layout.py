"""Names, chunk shapes and limits of the store."""

from __future__ import annotations

import pytest

from pipeline.clips.grid import TokenGrid
from pipeline.errors import ConfigError
from pipeline.store import layout


@pytest.mark.parametrize(
    ("shard_size", "clip_bytes", "expected"),
    [
        (256, 3136, 64),
        (512, 3136, 64),
        (64, 3136, 64),
        (10, 3136, 10),
        (100, 3136, 50),  # not a multiple of 64: the largest divisor below
        (257, 3136, 1),  # a prime: right, but slow
        (256, 1568 * 768 * 2, 4),  # all embeddings of VideoMAE-B: 16 MiB hold 6 clips
        (256, 64 << 20, 1),  # never below one clip
    ],
)
def test_inner_chunk_divides_the_shard(shard_size: int, clip_bytes: int, expected: int) -> None:
    size = layout.chunk_clips(shard_size, clip_bytes)
    assert size == expected
    assert shard_size % size == 0


@pytest.mark.parametrize("shard", [0, 42, 99_999, 100_000, 1_234_567])
def test_shard_names_are_read_back(shard: int) -> None:
    assert layout.parse_shard_name(layout.shard_name(shard)) == shard


@pytest.mark.parametrize(
    "name",
    ["shard-1.parquet", "shard-000042.parquet", ".shard-00042.parquet.abc.tmp", "shard-00042.csv"],
)
def test_other_names_are_no_shards(name: str) -> None:
    assert layout.parse_shard_name(name) is None


def test_the_last_shard_is_short_and_every_clip_is_in_one() -> None:
    rows = [layout.shard_rows(s, 4, 10) for s in range(layout.num_shards(10, 4))]
    assert [(r.start, r.stop) for r in rows] == [(0, 4), (4, 8), (8, 10)]


def test_outer_zarr_shard_is_the_work_shard() -> None:
    specs = layout.array_specs(1000, TokenGrid(8, 14, 14), 128, 384, 256)
    assert [(s.name, s.shard_clips, s.chunk_clips) for s in specs] == [
        ("scores", 256, 64),
        ("cam", 256, 64),
        ("embeddings", 256, 64),
        ("embedding_index", 256, 64),
    ]
    assert specs[0].chunk_key(42) == "oracle.zarr/scores/c.42.0.0.0"
    assert specs[3].chunk_key(7) == "oracle.zarr/embedding_index/c.7.0"


def test_no_embeddings_no_arrays_and_minus_one_keeps_all() -> None:
    grid = TokenGrid(2, 3, 4)
    assert [s.name for s in layout.array_specs(5, grid, 0, 8, 4)] == ["scores", "cam"]
    assert layout.array_specs(5, grid, -1, 8, 4)[2].shape == (5, 24, 8)


@pytest.mark.parametrize(
    ("grid", "k", "message"),
    [
        (TokenGrid(2, 3, 4), 25, "embeddings_per_clip 25 is more than the 24 tokens"),
        (TokenGrid(257, 1, 1), 1, "at most 256 along an axis"),
        (TokenGrid(64, 64, 64), 1, "32767 tokens"),
    ],
)
def test_what_the_dtypes_cannot_hold_is_refused(grid: TokenGrid, k: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        layout.num_embeddings(grid, k)
