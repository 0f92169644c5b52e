"""Creates a store, and says what is left to do in it.

Creation: plan, metadata of the arrays, then `store.json`; without the last there is no store and
the same call begins anew.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable

import numpy as np
import pyarrow as pa

from pipeline.clips.grid import TokenGrid
from pipeline.config import OracleConfig
from pipeline.errors import ClipStatus, StoreError
from pipeline.store import layout
from pipeline.store.arrays import metadata_files
from pipeline.store.begin import begin
from pipeline.store.commits import Commits
from pipeline.store.info import StoreInfo, library_versions
from pipeline.store.inventory import remove_leftovers
from pipeline.store.lock import StoreLock
from pipeline.store.root import Root
from pipeline.store.tables import plan_bytes

_log = logging.getLogger(__name__)


class StoreWriter:
    """A store held by this run alone; a context manager that tidies up and lets go at the end.

    Attributes:
        root: picklable; workers write through `ShardWriter(root)`.
        info: what `store.json` says.
    """

    def __init__(self, root: Root, info: StoreInfo, lock: StoreLock) -> None:
        self.root, self.info, self._lock = root, info, lock
        self._commits = Commits(root, info)

    def committed(self) -> list[int]:
        """Shards with a commit record, ascending."""
        return self._commits.shards()

    def pending(self) -> list[int]:
        """Shards still to do, ascending."""
        return self._commits.pending()

    def counts(self, shard: int) -> dict[str, int] | None:
        """Clips per status of a shard; None where it is not committed."""
        commit = self._commits.read(shard)
        return None if commit is None else Counter(commit.table(["status"])["status"].to_pylist())

    def to_retry(self, statuses: Iterable[str] | None = None) -> list[int]:
        """Committed shards that hold clips with one of the statuses, ascending.

        Args:
            statuses: values of `ClipStatus`; None means every failure.

        Raises:
            StoreError: not a status, or `ok`.
        """
        failures = [status.value for status in ClipStatus if status != ClipStatus.OK]
        wanted = failures if statuses is None else [str(status) for status in statuses]
        for status in wanted:
            if status not in failures:
                raise StoreError(f"no failure is called {status!r}; one of {', '.join(failures)}")
        return [s for s in self.committed() if not (self.counts(s) or {}).keys().isdisjoint(wanted)]

    def close(self) -> None:
        """Releases the lock."""
        self._lock.release()

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        try:
            if error is None:
                remove_leftovers(self.root, self.info)  # of workers that died on the way
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
        plan: `layout.plan_schema`, one row per clip, `clip_id` 0 .. n-1 in order.
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
        label_names=tuple(label_names),
        groups=layout.GROUP in plan.column_names,
        libraries=library_versions(),
    )
    files = {layout.PLAN: plan_bytes(plan, config.shard_size), **metadata_files(wanted.arrays)}
    _warn_of_small_chunks(wanted)
    info, lock = begin(root, wanted, files)
    return StoreWriter(root, info, lock)


def _checked_plan(plan: pa.Table, shard_size: int) -> pa.Table:
    schema = layout.plan_schema(layout.GROUP in plan.column_names)
    try:
        plan = plan.select(schema.names).cast(schema)
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


def _warn_of_small_chunks(info: StoreInfo) -> None:
    for spec in info.arrays:
        if spec.chunk_clips < 8 <= info.config.shard_size:
            _log.warning(
                "shard size %d leaves chunks of %d clip(s) in %r, which read slowly; a multiple "
                "of 64 is better",
                info.config.shard_size,
                spec.chunk_clips,
                spec.name,
            )
