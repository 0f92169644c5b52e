"""The files of a store's Zarr arrays as bytes, to be written and read as all its other files are.

Zarr makes the metadata and reads the arrays of others. One file is encoded and decoded here, chunk
by chunk: Zarr holds all chunks and the whole file beside the array, and takes four times as long.
https://zarr-specs.readthedocs.io/en/latest/v3/codecs/sharding-indexed/index.html
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from numcodecs import Zstd
from numcodecs.checksum32 import CRC32C
from zarr.codecs import ZstdCodec
from zarr.core.buffer import Buffer
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

    Args:
        spec: the array.
        values: the shard's rows; the last shard may be short.
    """
    codec, dtype = _codec(spec), _stored(spec)
    index, offset = [], 0
    for start in range(0, len(values), spec.chunk_clips):
        chunk = np.full((spec.chunk_clips, *spec.shape[1:]), spec.fill_value, dtype)
        rows = values[start : start + spec.chunk_clips]
        chunk[: len(rows)] = rows
        piece = codec.encode(chunk)
        index += [offset, len(piece)]
        offset += len(piece)
        yield piece
    index += [_NO_CHUNK] * (2 * _num_chunks(spec) - len(index))
    yield bytes(CRC32C().encode(np.array(index, "<u8")))


def decode(spec: ArraySpec, num_clips: int, data: bytes) -> npt.NDArray[Any]:
    """The rows of one shard of an array, the inverse of `encode`.

    Raises:
        StoreError: the bytes are damaged.
    """
    codec, values = _codec(spec), np.empty((num_clips, *spec.shape[1:]), _stored(spec))
    view = memoryview(data)
    try:
        # The index has a checksum, and so has each chunk.
        index = CRC32C().decode(view[-16 * _num_chunks(spec) - 4 :]).view("<u8").reshape(-1, 2)
        for start, (offset, size) in zip(
            range(0, num_clips, spec.chunk_clips), index.tolist(), strict=False
        ):
            rows = values[start : start + spec.chunk_clips]
            chunk = np.empty((spec.chunk_clips, *spec.shape[1:]), values.dtype)
            whole = len(rows) == spec.chunk_clips
            codec.decode(view[offset : offset + size], rows if whole else chunk)
            if not whole:
                rows[:] = chunk[: len(rows)]
    except (ValueError, RuntimeError, TypeError) as error:
        raise StoreError(f"{ZARR}/{spec.name} cannot be decoded ({error})") from error
    return values.astype(spec.dtype, copy=False)


def _codec(spec: ArraySpec) -> Zstd:
    return Zstd(level=spec.zstd_level, checksum=True)


def _stored(spec: ArraySpec) -> np.dtype[Any]:
    return np.dtype(spec.dtype).newbyteorder("<")


def _num_chunks(spec: ArraySpec) -> int:
    return spec.shard_clips // spec.chunk_clips
