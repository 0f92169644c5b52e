"""The Zarr arrays of a store as bytes: Zarr encodes and decodes in memory, the store does the rest.

So array files are written as all others are, whole and under a digest, and one file of an array is
one read.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from zarr.codecs import ZstdCodec
from zarr.core.buffer import Buffer, default_buffer_prototype
from zarr.storage import MemoryStore

from pipeline.errors import StoreError
from pipeline.store.layout import ZARR, ArraySpec

_METADATA = "zarr.json"


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


def encode(spec: ArraySpec, metadata: bytes, shard: int, values: npt.NDArray[Any]) -> memoryview:
    """The file of one shard of an array.

    Args:
        spec: the array.
        metadata: its `zarr.json`.
        shard: the shard.
        values: its rows.
    """
    files = {_METADATA: _buffer(metadata)}
    # Otherwise a shard of nothing but fill values gives no file, and every chunk is compared.
    array = _open(files, "r+").with_config({"write_empty_chunks": True})
    start = shard * spec.shard_clips
    array[start : start + len(values)] = values
    encoded: Any = files[spec.chunk_name(shard)].as_numpy_array()
    return memoryview(encoded)


def decode(
    spec: ArraySpec, metadata: bytes, shard: int, num_clips: int, data: bytes
) -> npt.NDArray[Any]:
    """The rows of one shard of an array, the inverse of `encode`.

    Raises:
        StoreError: the bytes are damaged.
    """
    start = shard * spec.shard_clips
    try:
        array = _open({_METADATA: _buffer(metadata), spec.chunk_name(shard): _buffer(data)}, "r")
        return np.asarray(array[start : start + num_clips])
    except Exception as error:  # of any type: whatever Zarr and its codecs make of damaged bytes
        what = f"{type(error).__name__}: {error}"
        raise StoreError(f"{spec.chunk_key(shard)} cannot be decoded ({what})") from error


def _open(files: dict[str, Buffer], mode: Any) -> zarr.Array[Any]:
    return zarr.open_array(MemoryStore(files), mode=mode, zarr_format=3)


def _buffer(data: bytes) -> Buffer:
    return default_buffer_prototype().buffer.from_bytes(data)
