"""The Zarr arrays of a store as bytes, to be written and read as all its other files are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from numcodecs import Zstd
from numcodecs.checksum32 import CRC32C
from zarr.codecs import ZstdCodec
from zarr.core.buffer import Buffer, default_buffer_prototype
from zarr.storage import MemoryStore

from pipeline.errors import StoreError
from pipeline.store.layout import ZARR, ArraySpec

_METADATA = "zarr.json"
_NO_CHUNK = 2**64 - 1


def metadata_path(name: str | None = None) -> str:
    """Path of the metadata of an array, or of the group, inside the store."""
    return f"{ZARR}/{name}/{_METADATA}" if name else f"{ZARR}/{_METADATA}"


def metadata_files(specs: Iterable[ArraySpec]) -> dict[str, bytes]:
    """Path and contents of the metadata of the group and of each array."""
    files: dict[str, Buffer] = {}
    group = zarr.create_group(MemoryStore(files))
    for spec in specs:
        group.create_array(
            spec.name,
            shape=spec.shape,
            chunks=(spec.chunk_clips, *spec.shape[1:]),
            shards=(spec.shard_clips, *spec.shape[1:]),
            dtype=spec.dtype,
            compressors=ZstdCodec(level=spec.zstd_level, checksum=True),
            fill_value=spec.fill_value,
            chunk_key_encoding={"name": "default", "separator": "."},  # one flat folder
            dimension_names=spec.dims,
            attributes={"description": spec.description},
        )
    return {f"{ZARR}/{key}": value.to_bytes() for key, value in files.items()}


def encode(spec: ArraySpec, values: npt.NDArray[Any]) -> Iterator[bytes]:
    """The file of one shard of an array, in pieces: the same bytes that Zarr writes.

    Zarr holds all chunks and the whole file at once, two more copies of the largest array.
    https://zarr-specs.readthedocs.io/en/latest/v3/codecs/sharding-indexed/index.html

    Args:
        spec: the array.
        values: the shard's rows; the last shard may be short.
    """
    codec = Zstd(level=spec.zstd_level, checksum=True)
    dtype = np.dtype(spec.dtype).newbyteorder("<")
    index, offset = [], 0
    for start in range(0, len(values), spec.chunk_clips):
        chunk = np.full((spec.chunk_clips, *spec.shape[1:]), spec.fill_value, dtype)
        rows = values[start : start + spec.chunk_clips]
        chunk[: len(rows)] = rows
        piece = codec.encode(chunk)
        index += [offset, len(piece)]
        offset += len(piece)
        yield piece
    index += [_NO_CHUNK] * (2 * spec.shard_clips // spec.chunk_clips - len(index))
    yield bytes(CRC32C().encode(np.array(index, "<u8")))


def decode(
    spec: ArraySpec, metadata: bytes, shard: int, num_clips: int, data: bytes
) -> npt.NDArray[Any]:
    """The rows of one shard of an array, the inverse of `encode`, by Zarr.

    Raises:
        StoreError: the bytes are damaged.
    """
    start = shard * spec.shard_clips
    try:
        if not data:
            raise ValueError("no bytes")  # which Zarr would take for fill values
        files = {_METADATA: _buffer(metadata), spec.chunk_name(shard): _buffer(data)}
        array = zarr.open_array(MemoryStore(files), mode="r", zarr_format=3)
        return np.asarray(array[start : start + num_clips])
    except Exception as error:  # of any type: whatever Zarr and its codecs make of damaged bytes
        what = f"{type(error).__name__}: {error}"
        raise StoreError(f"{spec.chunk_key(shard)} cannot be decoded ({what})") from error


def _buffer(data: bytes) -> Buffer:
    return default_buffer_prototype().buffer.from_bytes(data)
