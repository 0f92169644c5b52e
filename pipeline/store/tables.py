"""The Parquet tables of a store: how each is made, encoded, written whole and read back."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import ClipStatus, StoreError
from pipeline.store import layout
from pipeline.store.result import ShardResult
from pipeline.store.root import Root


def committed_shards(root: Root) -> set[int]:
    """Shards with a commit record, listed afresh."""
    shards = (layout.parse_shard_name(name) for name in root.names(layout.CLIPS))
    return {shard for shard in shards if shard is not None}


def read_plan(root: Root, shard: int | None = None) -> pa.Table:
    """The frozen plan, or the rows of one shard of it, in order of `clip_id`."""
    filters = None if shard is None else [("shard", "=", shard)]
    return read_parquet(root, layout.PLAN, filters=filters)


def read_parquet(
    root: Root, rel: str, columns: Collection[str] | None = None, filters: Any = None
) -> pa.Table:
    """One Parquet file of the store.

    Raises:
        StoreError: missing or damaged.
    """
    try:
        return pq.read_table(
            root.join(rel),
            columns=None if columns is None else list(columns),
            filters=filters,
            filesystem=root.fs,
            partitioning=None,  # or a folder called "a=b" above the store becomes a column
            page_checksum_verification=True,
        )
    except FileNotFoundError as error:
        raise StoreError(f"{root}/{rel} is missing; see `lite-pipeline verify`") from error
    except (pa.ArrowInvalid, pa.ArrowException, OSError) as error:
        raise StoreError(f"{root}/{rel} cannot be read ({error})") from error


def parquet_bytes(table: pa.Table, group_rows: int | None = None) -> bytes:
    """A whole Parquet file in memory, so that it is put in one go; one row group by default."""
    sink = pa.BufferOutputStream()
    names = set(table.schema.names)
    split = {"score"} & names
    pq.write_table(
        table,
        sink,
        row_group_size=group_rows or max(1, table.num_rows),
        compression="zstd",
        compression_level=3,
        use_dictionary=[name for name in table.schema.names if name not in split],
        column_encoding=dict.fromkeys(split, "BYTE_STREAM_SPLIT") or None,
        max_rows_per_page=1 << 20,  # small pages would hide most of the gain of the split
        write_page_checksum=True,
    )
    data: bytes = sink.getvalue().to_pybytes()
    return data


def clips_table(plan: pa.Table, result: ShardResult) -> pa.Table:
    """The commit record: what the plan says of each clip, and what became of it."""
    rows = pa.Table.from_pylist(
        result.clips,
        schema=pa.schema([layout.CLIPS_SCHEMA.field(name) for name in layout.OUTCOME_COLUMNS]),
    )
    columns = plan.combine_chunks().columns + rows.columns
    return pa.Table.from_arrays(columns, schema=layout.CLIPS_SCHEMA)


def tokens_table(clips: pa.Table, scores: npt.NDArray[np.float16]) -> pa.Table:
    """The long form of the clips that are ok, tokens in row-major order of `(t, y, x)`.

    Args:
        clips: `layout.CLIPS_SCHEMA`, n rows.
        scores: float16 (n, t, y, x).
    """
    ok = np.flatnonzero(np.array(clips["status"].to_pylist()) == ClipStatus.OK.value)
    grid = scores.shape[1:]
    num_tokens = math.prod(grid)
    t, y, x = (np.tile(axis.ravel().astype(np.uint8), len(ok)) for axis in np.indices(grid))
    columns = [
        np.repeat(clips["clip_id"].to_numpy()[ok], num_tokens),
        np.repeat(clips["label"].to_numpy()[ok], num_tokens),
        t,
        y,
        x,
        scores[ok].astype(np.float32).ravel(),
    ]
    arrays = [pa.array(c, f.type) for c, f in zip(columns, layout.TOKENS_SCHEMA, strict=True)]
    return pa.Table.from_arrays(arrays, schema=layout.TOKENS_SCHEMA)
