"""The Parquet tables of a store: how each is made, encoded, written whole and read back."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import ClipStatus, StoreError
from pipeline.store import layout
from pipeline.store.result import ShardResult

_PLAN_GROUP_ROWS = 1 << 16
_LARGE = 1 << 20


def parquet_bytes(
    table: pa.Table,
    *,
    group_rows: int | None = None,
    footer: Mapping[str, str] | None = None,
) -> bytes:
    """A whole Parquet file in memory, so that it is put in one go; one row group by default.

    Args:
        table: the rows.
        group_rows: rows of a row group.
        footer: further key-value metadata of the file, not of its Arrow schema.
    """
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(
        sink,
        table.schema,
        compression="zstd",
        compression_level=3,
        # float32 rounded to float16 has few different values: their dictionary is as small as the
        # encoding made for floats (BYTE_STREAM_SPLIT), which many readers do not know.
        use_dictionary=True,
        max_rows_per_page=1 << 20,  # small pages cost space
        write_page_checksum=True,
    ) as writer:
        writer.write_table(table, row_group_size=group_rows or max(1, table.num_rows))
        if footer:
            writer.add_key_value_metadata(dict(footer))
    data: bytes = sink.getvalue().to_pybytes()
    return data


def read_table(data: bytes, where: str, columns: Collection[str] | None = None) -> pa.Table:
    """The rows of a Parquet file in memory; `where` names it in errors.

    Raises:
        StoreError: it is damaged.
    """
    try:
        return pq.read_table(
            pa.BufferReader(data),
            columns=None if columns is None else list(columns),
            page_checksum_verification=True,
            # There is nothing to wait for, and handing small tables around takes longer than they.
            pre_buffer=False,
            use_threads=len(data) > _LARGE,
        )
    except (pa.ArrowException, OSError) as error:
        raise StoreError(f"{where} cannot be read ({error})") from error


def plan_bytes(plan: pa.Table, shard_size: int) -> bytes:
    """The file of a plan; row groups of whole shards."""
    return parquet_bytes(plan, group_rows=max(1, _PLAN_GROUP_ROWS // shard_size) * shard_size)


def clips_table(plan: pa.Table, result: ShardResult) -> pa.Table:
    """The rows of a commit record: what the plan says of each clip, and what became of it."""
    further = result.suffixes[1:]
    outcomes = pa.schema(layout.outcome_fields(further))
    rows = pa.Table.from_pylist(result.clips, schema=outcomes)
    columns = plan.combine_chunks().columns + rows.columns
    return pa.Table.from_arrays(
        columns, schema=layout.clips_schema(further, layout.GROUP in plan.column_names)
    )


def tokens_table(clips: pa.Table, scores: Mapping[str, npt.NDArray[np.float16]]) -> pa.Table:
    """The long form of the clips that are ok, tokens in row-major order of `(t, y, x)`.

    Args:
        clips: `layout.CLIPS_SCHEMA`, n rows.
        scores: by the suffixes of the oracles, the first's first, float16 (n, t, y, x).
    """
    ok = np.flatnonzero(np.array(clips["status"].to_pylist()) == ClipStatus.OK.value)
    grid = scores[""].shape[1:]
    num_tokens = math.prod(grid)
    t, y, x = (np.tile(axis.ravel().astype(np.uint8), len(ok)) for axis in np.indices(grid))
    columns = [
        np.repeat(clips["clip_id"].to_numpy()[ok], num_tokens),
        np.repeat(clips["label"].to_numpy()[ok], num_tokens),
        t,
        y,
        x,
        *(values[ok].astype(np.float32).ravel() for values in scores.values()),
    ]
    schema = layout.tokens_schema(list(scores)[1:])
    arrays: list[Any] = [pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)]
    return pa.Table.from_arrays(arrays, schema=schema)
