"""The files of the arrays are those that Zarr writes, byte by byte."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr

from pipeline.clips.grid import TokenGrid
from pipeline.errors import StoreError
from pipeline.store.arrays import decode, encode, metadata_files
from pipeline.store.layout import ZARR, ArraySpec, array_specs

GRID = TokenGrid(2, 3, 5)


def random_rows(spec: ArraySpec, num_clips: int) -> np.ndarray:
    rng = np.random.default_rng(num_clips)
    if spec.dtype == "int16":
        rows = rng.integers(0, 30, (num_clips, *spec.shape[1:])).astype(np.int16)
    else:
        rows = rng.standard_normal((num_clips, *spec.shape[1:])).astype(spec.dtype)
    rows[::3] = spec.fill_value  # failed clips
    return rows


@pytest.mark.parametrize(
    ("num_clips", "shard_size"),
    [(10, 4), (4, 4), (1, 256), (130, 128), (257, 256), (129, 67), (100, 96)],
)
def test_the_bytes_are_zarrs(tmp_path: Path, num_clips: int, shard_size: int) -> None:
    specs = array_specs(num_clips, GRID, 7, 11, shard_size)
    for path, data in metadata_files(specs).items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(data)
    for spec in specs:
        array = zarr.open_array(tmp_path / ZARR / spec.name, mode="r+")
        array = array.with_config({"write_empty_chunks": True})
        rows = random_rows(spec, num_clips)
        array[:] = rows
        for shard, start in enumerate(range(0, num_clips, shard_size)):
            mine = rows[start : start + shard_size]
            data = b"".join(encode(spec, mine))
            assert data == (tmp_path / spec.chunk_key(shard)).read_bytes()
            back = decode(spec, len(mine), data)
            assert back.dtype == mine.dtype
            assert back.tobytes() == mine.tobytes()


def test_rows_of_failed_clips_cost_nothing() -> None:
    """A clip of VideoMAE-B keeps 128 embeddings of 768 numbers: 196,608 bytes."""
    spec = array_specs(64, TokenGrid(8, 14, 14), 128, 768, 64)[2]
    assert spec.name == "embeddings"
    rows = np.random.default_rng(0).standard_normal((64, 128, 768)).astype(np.float16)
    all_ok = sum(map(len, encode(spec, rows)))
    rows[:32] = np.nan
    half_failed = sum(map(len, encode(spec, rows)))
    assert all_ok == pytest.approx(64 * 196_608, rel=1e-3)
    assert half_failed - all_ok / 2 < 32 * 64  # at most 64 bytes each


def test_one_chunk_at_a_time() -> None:
    """No more than a chunk is in memory: a second one is made when it is asked for."""
    spec = array_specs(640, GRID, 5, 4, 640)[2]
    pieces = encode(spec, random_rows(spec, 640))
    sizes = [len(piece) for piece in pieces]
    assert len(sizes) == 10 + 1  # chunks of 64 clips, and the index
    assert sizes[-1] == 10 * 16 + 4


def test_every_damaged_byte_is_an_error_of_ours_or_changes_nothing() -> None:
    spec = array_specs(130, GRID, 5, 4, 130)[3]
    rows = random_rows(spec, 130)
    data = b"".join(encode(spec, rows))
    harmless = 0
    for at in range(len(data)):
        changed = bytearray(data)
        changed[at] ^= 1 << at % 8
        try:
            found = decode(spec, 130, bytes(changed))
        except StoreError as error:
            said = str(error)
        else:
            assert found.tobytes() == rows.tobytes()
            harmless += 1
    assert said.startswith("oracle.zarr/embedding_index cannot be decoded (")
    assert harmless < 10  # unused bits of zstd's headers


@pytest.mark.parametrize("data", [b"", b"x", b"x" * 1000])
def test_what_is_no_shard_is_an_error_of_ours(data: bytes) -> None:
    with pytest.raises(StoreError, match=r"oracle\.zarr/cam cannot be decoded"):
        decode(array_specs(10, GRID, 5, 4, 4)[1], 4, data)


def test_a_shard_that_lacks_a_chunk_is_an_error_of_ours() -> None:
    spec = array_specs(130, GRID, 5, 4, 130)[0]
    with pytest.raises(StoreError, match=r"oracle\.zarr/scores cannot be decoded"):
        decode(spec, 130, b"".join(encode(spec, random_rows(spec, 65))))
