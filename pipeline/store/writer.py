"""Creates a store and commits shards to it, so that a kill at any instant loses nothing.

Creation: plan, arrays, then `store.json`; without the last there is no store and the same call
begins anew. A shard: arrays, then its token table, then its clips table, which is the commit; a
shard without it does not exist for readers and is done again by the next run. One shard is written
by one process at a time, and no two shards share a file.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec

from pipeline.clips.grid import TokenGrid
from pipeline.config import OracleConfig
from pipeline.errors import ClipStatus, StoreError
from pipeline.store import layout
from pipeline.store.info import StoreInfo, library_versions, read_info
from pipeline.store.lock import StoreLock, writing
from pipeline.store.result import ShardResult
from pipeline.store.root import TEMP_SUFFIX, ZARR_TEMP_SUFFIX, Root
from pipeline.store.tables import (
    clips_table,
    committed_shards,
    parquet_bytes,
    read_parquet,
    read_plan,
    tokens_table,
)

_log = logging.getLogger(__name__)

_PLAN_GROUP_ROWS = 1 << 16


class StoreWriter:
    """A store held by this run alone; a context manager that tidies up and lets go at the end.

    Attributes:
        root: picklable; workers write through `write_shard(root, ...)`.
        info: what `store.json` says.
    """

    def __init__(self, root: Root, info: StoreInfo, lock: StoreLock) -> None:
        self.root, self.info, self._lock = root, info, lock

    def committed(self) -> set[int]:
        """Shards with a commit record."""
        return committed_shards(self.root)

    def pending(self) -> list[int]:
        """Shards still to do, ascending."""
        return sorted(set(range(self.info.num_shards)) - self.committed())

    def to_retry(self, statuses: Iterable[str] | None = None) -> list[int]:
        """Committed shards with clips that failed; see `select_retry`."""
        return select_retry(self.root, statuses)

    def close(self) -> None:
        """Releases the lock."""
        self._lock.release()

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        try:
            if error is None:
                remove_leftovers(self.root)  # of workers that died on the way
        finally:
            self.close()


def create_store(
    url: str | Root,
    config: OracleConfig,
    plan: pa.Table,
    grid: TokenGrid,
    hidden_size: int,
    label_names: list[str],
) -> StoreWriter:
    """Creates a store, completes a half-created one, or opens an existing one to continue it.

    Takes the store's lock and removes what a killed run left lying about.

    Args:
        url: folder or fsspec URL; absent, empty, or a store.
        config: what decides the results.
        plan: `layout.PLAN_SCHEMA`, one row per clip, `clip_id` 0 .. n-1 in order.
        grid: tokens of a clip.
        hidden_size: length of an embedding.
        label_names: index = class id; empty where unknown.

    Raises:
        StoreMismatchError: it was built by another configuration.
        StoreError: another run is writing, or the place holds something else.
        ConfigError: a grid or token count that the store cannot hold.
    """
    root = url if isinstance(url, Root) else Root(url)
    plan = _checked_plan(plan, config.shard_size)
    wanted = StoreInfo(
        config=config,
        grid=TokenGrid(*grid),
        hidden_size=hidden_size,
        num_clips=plan.num_rows,
        label_names=list(label_names),
        libraries=library_versions(),
    )
    _ = wanted.arrays  # raises before anything is written
    _refuse_foreign(root)
    lock = StoreLock(root)
    try:
        if root.exists(layout.STORE_JSON):
            info = read_info(root)
            info.check_continues(wanted, str(root))
        else:
            info = wanted
            _create(root, info, plan)
        remove_leftovers(root)
    except BaseException:
        lock.release()
        raise
    return StoreWriter(root, info, lock)


def write_shard(root: Root, shard: int, result: ShardResult) -> None:
    """Commits one shard; may be called again for a shard that is committed (a retry).

    The old commit record goes first: until the new one stands, readers see the shard as not done,
    never as a mixture, and a run killed in between is completed by the next.

    Raises:
        StoreError: the result does not fit the store, or breaks its rules.
    """
    info = read_info(root)
    rows = info.rows(shard)
    _check_result(info, shard, rows.stop - rows.start, result)
    clips = clips_table(read_plan(root, shard), result)
    tokens = tokens_table(clips, result.scores)
    with writing(root, shard):
        root.remove(layout.clips_path(shard))
        _write_arrays(root, info, shard, result)
        root.put(layout.tokens_path(shard), parquet_bytes(tokens))
        root.put(layout.clips_path(shard), parquet_bytes(clips))


def load_result(root: Root, shard: int) -> ShardResult:
    """A committed shard as it stands, to set its failed clips again and commit it anew.

    Writing it unchanged gives the same bytes.

    Raises:
        StoreError: not committed, or damaged.
    """
    info = read_info(root)
    rows = info.rows(shard)
    clips = read_parquet(root, layout.clips_path(shard), layout.OUTCOME_COLUMNS)
    result = ShardResult(clips.num_rows, info.grid, info.config.tokens_per_clip, info.hidden_size)
    result.clips = clips.to_pylist()
    group = zarr.open_group(**root.zarr_location(layout.ZARR), mode="r")
    for spec in info.arrays:
        array = group[spec.name]
        assert isinstance(array, zarr.Array)
        try:
            setattr(result, spec.name, array[rows])
        except (ValueError, RuntimeError, OSError) as error:
            raise StoreError(
                f"{root}/{spec.chunk_key(shard)} cannot be read ({error}): remove "
                f"{layout.clips_path(shard)} and run build-oracle again to do the shard anew"
            ) from error
    return result


def select_retry(root: Root, statuses: Iterable[str] | None = None) -> list[int]:
    """Committed shards that hold clips with one of the statuses, ascending.

    Args:
        root: the store.
        statuses: values of `ClipStatus`; None means every failure.

    Raises:
        StoreError: not a status, or `ok`.
    """
    failures = [status.value for status in ClipStatus if status != ClipStatus.OK]
    wanted = failures if statuses is None else [str(status) for status in statuses]
    for status in wanted:
        if status not in failures:
            raise StoreError(f"no failure is called {status!r}; one of {', '.join(failures)}")
    found = []
    for shard in sorted(committed_shards(root)):
        column = read_parquet(root, layout.clips_path(shard), ["status"])["status"]
        if not set(column.to_pylist()).isdisjoint(wanted):
            found.append(shard)
    return found


def remove_leftovers(root: Root) -> list[str]:
    """Removes temporary files and uncommitted token tables, waiting for shards being written.

    Returns:
        The paths removed, relative to the root.
    """
    with writing(root):
        return _remove_leftovers(root)


def _remove_leftovers(root: Root) -> list[str]:
    committed = committed_shards(root)
    doomed = []
    for path in root.walk():
        folder, _, name = path.rpartition("/")
        shard = layout.parse_shard_name(name) if folder == layout.TOKENS else None
        ours = name.startswith(".") and name.endswith(TEMP_SUFFIX)
        zarrs = folder.startswith(layout.ZARR) and name.endswith(ZARR_TEMP_SUFFIX)
        if ours or zarrs or (shard is not None and shard not in committed):
            doomed.append(path)
    for path in doomed:
        root.remove(path)
    if doomed:
        _log.info("%s: removed %d leftovers of a killed run", root, len(doomed))
    return doomed


def _checked_plan(plan: pa.Table, shard_size: int) -> pa.Table:
    try:
        plan = plan.select(layout.PLAN_SCHEMA.names).cast(layout.PLAN_SCHEMA)
    except (KeyError, pa.ArrowInvalid) as error:
        raise StoreError(f"the plan does not have the columns of PLAN_SCHEMA: {error}") from error
    if plan.num_rows == 0:
        raise StoreError("the plan lists no clips: check --dataset, --data-root, --split, --limit")
    ids = np.arange(plan.num_rows)
    if not np.array_equal(plan["clip_id"].to_numpy(), ids):
        raise StoreError("the plan's clip_id must count 0, 1, 2, ... in order")
    if not np.array_equal(plan["shard"].to_numpy(), ids // shard_size):
        raise StoreError(f"the plan's shard must be clip_id // {shard_size} (the shard size)")
    return plan


def _refuse_foreign(root: Root) -> None:
    names = [name for name in root.names() if not name.endswith(TEMP_SUFFIX)]
    if layout.STORE_JSON in names:
        return
    if layout.CLIPS in names and committed_shards(root):
        raise StoreError(
            f"{root} holds committed shards but no {layout.STORE_JSON}: put that file back from "
            "a copy, or build into another folder"
        )
    foreign = sorted(set(names) - {layout.PLAN, layout.ZARR, layout.RUNS, layout.TOKENS})
    if foreign:
        raise StoreError(
            f"{root} is no store and not empty (found {', '.join(foreign[:5])}): build into a "
            "new folder"
        )


def _create(root: Root, info: StoreInfo, plan: pa.Table) -> None:
    shard_size = info.config.shard_size
    group_rows = max(1, _PLAN_GROUP_ROWS // shard_size) * shard_size
    root.put(layout.PLAN, parquet_bytes(plan, group_rows))
    group = zarr.create_group(**root.zarr_location(layout.ZARR), overwrite=True)
    for spec in info.arrays:
        if spec.chunk_clips < 8 <= shard_size:
            _log.warning(
                "shard size %d leaves chunks of %d clip(s) in %r, which read slowly; a multiple "
                "of 64 is better",
                shard_size,
                spec.chunk_clips,
                spec.name,
            )
        group.create_array(
            spec.name,
            shape=spec.shape,
            chunks=(spec.chunk_clips, *spec.shape[1:]),
            shards=(spec.shard_clips, *spec.shape[1:]),
            dtype=spec.dtype,
            # Both carry a checksum, so that `verify` sees a flipped bit.
            compressors=ZstdCodec(level=3, checksum=True) if spec.compressed else Crc32cCodec(),
            fill_value=spec.fill_value,
            chunk_key_encoding={"name": "default", "separator": "."},  # one flat folder
            dimension_names=spec.dims,
            attributes={"description": spec.description},
        )
    root.sync([f"{layout.ZARR}/zarr.json"])
    root.sync(f"{layout.ZARR}/{spec.name}/zarr.json" for spec in info.arrays)
    root.put(layout.STORE_JSON, info.to_json())


def _check_result(info: StoreInfo, shard: int, num_clips: int, result: ShardResult) -> None:
    def wrong(what: str) -> StoreError:
        return StoreError(f"shard {shard} cannot be committed: {what}")

    if len(result) != num_clips:
        raise wrong(f"{len(result)} clips instead of {num_clips}")
    unset = [row for row, clip in enumerate(result.clips) if clip is None]
    if unset:
        raise wrong(f"rows {unset[:5]} of it have no outcome")
    for spec in info.arrays:
        array = getattr(result, spec.name)
        if array is None or array.shape != (num_clips, *spec.shape[1:]):
            got = None if array is None else array.shape
            raise wrong(f"{spec.name} is {got} instead of {(num_clips, *spec.shape[1:])}")
    ok = np.array([clip["status"] == ClipStatus.OK for clip in result.clips if clip])
    has_scores = np.isfinite(result.scores).all(axis=(1, 2, 3))
    if not np.array_equal(ok, has_scores):
        raise wrong("scores must be numbers exactly where the clip is ok")
    if not ((result.scores[ok] >= 0) & (result.scores[ok] <= 1)).all():
        raise wrong("scores must lie in [0, 1]")
    if result.embedding_index is not None:
        index = result.embedding_index[ok].astype(np.int32)
        inside = (index >= 0) & (index < info.grid.num_tokens)
        if not inside.all() or not (np.diff(index, axis=1) > 0).all():
            raise wrong("embedding_index must be ascending token numbers without repeats")


def _write_arrays(root: Root, info: StoreInfo, shard: int, result: ShardResult) -> None:
    keys = [spec.chunk_key(shard) for spec in info.arrays]
    for key in keys:
        root.remove(key)  # Zarr reads what it overwrites, and would stumble over a damaged file
    group = zarr.open_group(**root.zarr_location(layout.ZARR), mode="r+")
    for spec in info.arrays:
        array = group[spec.name]
        assert isinstance(array, zarr.Array)
        # Otherwise a shard of nothing but fill values writes no file, and every chunk is compared.
        array = array.with_config({"write_empty_chunks": True})
        array[info.rows(shard)] = getattr(result, spec.name)
    root.sync(keys)
