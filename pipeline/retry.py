"""Takes a committed shard back into memory, so that only its failed clips are done again."""

from __future__ import annotations

import zarr

from pipeline.store import layout
from pipeline.store.info import read_info
from pipeline.store.result import ShardResult
from pipeline.store.root import Root
from pipeline.store.writer import read_parquet


def load_result(root: Root, shard: int) -> ShardResult:
    """The arrays and rows of a committed shard exactly as they were written.

    Raises:
        StoreError: the commit record is missing or damaged.
    """
    info = read_info(root)
    rows = info.rows(shard)
    num_clips = rows.stop - rows.start
    result = ShardResult(num_clips, info.grid, info.config.tokens_per_clip, info.hidden_size)
    table = read_parquet(root, layout.clips_path(shard), list(layout.OUTCOME_COLUMNS))
    result.clips[:] = table.to_pylist()
    group = zarr.open_group(**root.zarr_location(layout.ZARR), mode="r")
    for spec in info.arrays:
        array = group[spec.name]
        assert isinstance(array, zarr.Array)
        getattr(result, spec.name)[...] = array[rows]
    return result
