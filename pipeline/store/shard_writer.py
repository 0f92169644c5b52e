"""Commits shards to a store, so that a kill at any instant loses nothing.

A shard: its arrays, then its token table, then its clips table, which is the commit; a shard
without it does not exist for readers and is done again by the next run. One shard is written by
one process at a time, and no two shards share a file.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import pyarrow as pa

from pipeline.errors import ClipStatus, StoreError
from pipeline.store import layout
from pipeline.store.arrays import decode, encode
from pipeline.store.commits import Commits, commit_bytes
from pipeline.store.info import StoreInfo
from pipeline.store.lock import writing
from pipeline.store.manifest import read_checked
from pipeline.store.result import ShardResult
from pipeline.store.root import Root
from pipeline.store.tables import clips_table, parquet_bytes, read_table, tokens_table


class ShardWriter:
    """Writes the shards of one store; what does not change between them is read once.

    Args:
        root: the store, which must exist.
    """

    def __init__(self, root: Root) -> None:
        self.root = root
        self.info = StoreInfo.read(root)
        self._commits = Commits(root, self.info)

    def plan(self, shard: int) -> pa.Table:
        """A shard's rows of the plan, in order of `clip_id`.

        Raises:
            StoreError: no such shard, or the plan is damaged.
        """
        rows = self.info.rows(shard)
        return self._plan.slice(rows.start, rows.stop - rows.start)

    def new_result(self, shard: int) -> ShardResult:
        """A result with no row set.

        Raises:
            StoreError: no such shard.
        """
        info = self.info
        return ShardResult(
            info.num_clips_of(shard),
            info.grid,
            info.config.embeddings_per_clip,
            info.hidden_size,
            info.suffixes,
        )

    def load(self, shard: int) -> ShardResult | None:
        """A committed shard as it stands, to set its failed clips again; None if not committed.

        Writing it unchanged gives the same bytes.

        Raises:
            StoreError: it is damaged.
        """
        commit = self._commits.read(shard)
        if commit is None:
            return None
        result = self.new_result(shard)
        columns = [field.name for field in layout.outcome_fields(result.suffixes[1:])]
        result.clips = commit.table(columns).to_pylist()
        for spec in self.info.arrays:
            data = commit.read(spec.chunk_key(shard))
            result.arrays[spec.name] = decode(spec, len(result), data)
        return result

    def write(self, shard: int, result: ShardResult) -> None:
        """Commits one shard; may be called again for a shard that is committed (a retry).

        The old commit record goes first: until the new one stands, readers see the shard as not
        done, never as a mixture, and a run killed in between is completed by the next.

        Raises:
            StoreError: the result does not fit the store, or breaks its rules.
        """
        _check_result(self.info, shard, result)
        clips = clips_table(self.plan(shard), result)
        files = {}
        with writing(self.root, shard):
            self.root.remove(self.info.commit_path(shard))
            for spec in self.info.arrays:
                key, values = spec.chunk_key(shard), result.arrays[spec.name]
                files[key] = self.root.put(key, encode(spec, values))
            scores = {suffix: result.arrays["scores" + suffix] for suffix in result.suffixes}
            key, tokens = layout.tokens_path(shard), tokens_table(clips, scores)
            files[key] = self.root.put(key, parquet_bytes(tokens))
            self.root.put(
                self.info.commit_path(shard), commit_bytes(clips, self.info, shard, files)
            )

    @cached_property
    def _plan(self) -> pa.Table:
        data = read_checked(self.root, self.info, layout.PLAN)
        return read_table(data, f"{self.root}/{layout.PLAN}")


def _check_result(info: StoreInfo, shard: int, result: ShardResult) -> None:
    num_clips = info.num_clips_of(shard)

    def wrong(what: str) -> StoreError:
        return StoreError(f"shard {shard} cannot be committed: {what}")

    if len(result) != num_clips:
        raise wrong(f"{len(result)} clips instead of {num_clips}")
    unset = [row for row, clip in enumerate(result.clips) if clip is None]
    if unset:
        raise wrong(f"rows {unset[:5]} of it have no outcome")
    for spec in info.arrays:
        array = result.arrays.get(spec.name)
        if array is None or array.shape != (num_clips, *spec.shape[1:]):
            got = None if array is None else array.shape
            raise wrong(f"{spec.name} is {got} instead of {(num_clips, *spec.shape[1:])}")
    ok = np.array([clip["status"] == ClipStatus.OK for clip in result.clips if clip])
    for name in ("scores" + suffix for suffix in info.suffixes):
        scores = result.arrays[name]
        if not np.array_equal(ok, np.isfinite(scores).all(axis=(1, 2, 3))):
            raise wrong(f"{name} must be numbers exactly where the clip is ok")
        if not ((scores[ok] >= 0) & (scores[ok] <= 1)).all():
            raise wrong(f"{name} must lie in [0, 1]")
    if result.embedding_index is not None:
        index = result.embedding_index[ok].astype(np.int32)
        inside = (index >= 0) & (index < info.grid.num_tokens)
        if not inside.all() or not (np.diff(index, axis=1) > 0).all():
            raise wrong("embedding_index must be ascending token numbers without repeats")
