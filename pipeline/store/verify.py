"""Recounts and re-checks everything in a store, one shard in memory at a time.

First the bytes: every committed file has a digest, in `store.json` or in its shard's commit record,
which cover themselves. Then what they say, which must hold whatever wrote them.

Damage is reported and never raised, so that one broken file does not hide the next.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.clips.plan import plan_digest
from pipeline.errors import ClipStatus, StoreError, StoreNotFoundError
from pipeline.store import layout
from pipeline.store.arrays import decode
from pipeline.store.commits import Commit, Commits
from pipeline.store.info import STORE, StoreInfo
from pipeline.store.inventory import take_inventory
from pipeline.store.manifest import partition_in_path, rewrites
from pipeline.store.root import Root
from pipeline.store.seal import digest
from pipeline.store.tables import read_table
from pipeline.store.verify_rows import array_faults, clips_faults, tokens_faults

_RERUN = f"run the same `lite-pipeline {STORE.command}` again to complete it"
_REWRITTEN = rewrites(STORE)
_LOST = "put it back from a copy, or build into another folder"
_SHOWN = 5


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, or worth a note.

    Attributes:
        where: path inside the store.
        what: what is wrong with it, with the values.
        remedy: what to do about it.
        harmless: the store is sound all the same.
    """

    where: str
    what: str
    remedy: str
    harmless: bool = False

    def __str__(self) -> str:
        return f"{self.where}: {self.what}; {self.remedy}"


def verify_store(
    url: str | Root, on_shard: Callable[[int, int], None] | None = None
) -> list[Problem]:
    """Checks a store from `store.json` to the last token.

    Args:
        url: folder or fsspec URL.
        on_shard: called with (shards checked, shards to check) after each.

    Returns:
        What is wrong, in the order of the layout, and then what is worth a note; the store is sound
        and complete if nothing but harmless notes is left.

    Raises:
        StoreNotFoundError: there is nothing at all at that place.
    """
    root = url if isinstance(url, Root) else Root(url)
    try:
        info = StoreInfo.read(root)
    except StoreNotFoundError as error:
        if not root.names():
            raise
        return [Problem(layout.STORE_JSON, str(error), _LOST)]
    except StoreError as error:
        return [Problem(layout.STORE_JSON, str(error), _LOST)]
    check = _Check(root, info)
    problems = check.beginning()
    shards = check.commits.shards()
    for done, shard in enumerate(shards, start=1):
        problems += check.shard(shard)
        if on_shard is not None:
            on_shard(done, len(shards))
    committed = check.commits.shards()
    problems += _missing_shards(info, committed)
    problems += _other_files(root, info, committed)
    return problems


class _Check:
    """One store under check."""

    def __init__(self, root: Root, info: StoreInfo) -> None:
        self._root, self._info = root, info
        self.commits = Commits(root, info)
        self._plan: pa.Table | None = None

    def beginning(self) -> list[Problem]:
        """The files written before `store.json`, under its digests."""
        problems, info = [], self._info
        for rel, wanted in info.files.items():
            try:
                data = self._root.get(rel)
            except FileNotFoundError:
                problems.append(Problem(rel, "missing", _REWRITTEN))
                continue
            if digest(data) != wanted:
                problems.append(Problem(rel, "damaged: it is not as it was written", _REWRITTEN))
            elif rel == layout.PLAN:
                problems += [Problem(rel, what, _LOST) for what in self._check_plan(data)]
        return problems

    def _check_plan(self, data: bytes) -> list[str]:
        info = self._info
        plan = read_table(data, layout.PLAN)
        if not plan.schema.equals(info.plan_schema):
            return ["its columns are not those of a plan"]
        if plan.num_rows != info.num_clips:
            return [f"{plan.num_rows} clips, store.json says {info.num_clips}"]
        ids = np.arange(plan.num_rows)
        if not np.array_equal(plan["clip_id"].to_numpy(), ids):
            return ["clip_id does not count 0, 1, 2, ..."]
        if not np.array_equal(plan["shard"].to_numpy(), ids // info.config.shard_size):
            return [f"shard is not clip_id // {info.config.shard_size}"]
        found, wanted = plan_digest(plan), info.config.plan_digest
        if found != wanted:
            return [f"its digest is {found[:12]}, store.json has {wanted[:12]}"]
        self._plan = plan
        return []

    def shard(self, shard: int) -> list[Problem]:
        """A committed shard; checked again if it was done again meanwhile."""
        where = self._info.commit_path(shard)
        try:
            commit = self.commits.read(shard)
            while commit is not None:
                problems = self._check_shard(shard, commit)
                now = self.commits.read(shard) if problems else commit
                if now == commit:
                    return problems
                commit = now
        except Exception as error:
            return [_damaged(where, shard, _one_line(error))]
        return []

    def _check_shard(self, shard: int, commit: Commit) -> list[Problem]:
        """The rows of a commit record, then the files that it names."""
        info, where = self._info, commit.path
        clips = commit.table()
        rows = info.rows(shard)
        problems = [_damaged(where, shard, w) for w in clips_faults(info, rows, clips, self._plan)]
        if problems:
            return problems  # without sound rows nothing else of the shard can be judged
        ok = np.array([status == ClipStatus.OK for status in clips["status"].to_pylist()])
        values: dict[str, npt.NDArray[Any]] = {}
        for spec in info.arrays:
            key = spec.chunk_key(shard)
            try:
                values[spec.name] = decode(spec, len(ok), commit.read(key))
            except StoreError as error:
                problems.append(_damaged(key, shard, _one_line(error)))
                continue
            faults = array_faults(info, rows, spec, values, ok, clips)
            problems += [_damaged(key, shard, what) for what in faults]
            if spec.kind not in ("scores", "embedding_index"):
                del values[spec.name]  # large, and nothing that follows is judged by it
        scores = {s: values["scores" + s] for s in info.suffixes if "scores" + s in values}
        return problems + self._check_tokens(shard, commit, clips, scores)

    def _check_tokens(
        self, shard: int, commit: Commit, clips: pa.Table, scores: dict[str, npt.NDArray[Any]]
    ) -> list[Problem]:
        where = layout.tokens_path(shard)
        try:
            tokens = read_table(commit.read(where), where)
        except StoreError as error:
            return [_damaged(where, shard, _one_line(error))]
        whole = len(scores) == len(self._info.suffixes)
        faults = tokens_faults(tokens, clips, scores) if whole else []
        return [_damaged(where, shard, what) for what in faults]


def _missing_shards(info: StoreInfo, committed: Collection[int]) -> list[Problem]:
    missing = sorted(set(range(info.num_shards)) - set(committed))
    if not missing:
        return []
    clips = sum(map(info.num_clips_of, missing))
    shown = ", ".join(map(str, missing[:_SHOWN])) + (", ..." if len(missing) > _SHOWN else "")
    what = f"{len(missing)} of {info.num_shards} shards ({clips} clips) are missing: {shown}"
    return [Problem(layout.CLIPS, what, _RERUN)]


def _other_files(root: Root, info: StoreInfo, committed: Collection[int]) -> list[Problem]:
    """Files that are no part of the data: first what does harm, then what is worth a note."""
    found = take_inventory(info, root.walk(), committed)
    problems = [
        Problem(path, f"a copy of {original} by a program that shares files", _COPY_REMEDY)
        for path, original in found.copies.items()
    ]
    problems += [
        Problem(path, "does not belong to the store, and its readers take it for data", "move it")
        for path in found.foreign
    ]
    note = Problem("", "", "", harmless=True)
    what, remedy = "left by a killed run", "the next run removes it"
    problems += [replace(note, where=w, what=what, remedy=remedy) for w in found.leftovers]
    partition = partition_in_path(root, info)
    if partition is not None:
        what = f"DuckDB takes {partition!r} above the store for a column"
        remedy = "move the store, or read it with hive_partitioning=false"
        problems.append(replace(note, where=str(root), what=what, remedy=remedy))
    beside: dict[str, int] = {}
    for path in found.outsiders:
        first, _, rest = path.partition("/")
        name = f"{first}/" if rest and first not in info.KIND.folders else path
        beside[name] = beside.get(name, 0) + 1
    for name, count in beside.items():
        what = "not part of the store" + (f" ({count} files)" if count > 1 else "")
        problems.append(replace(note, where=name, what=what, remedy="nothing to do"))
    return problems


_COPY_REMEDY = "two machines wrote one store, or a file was copied: see which is right, remove it"


def _damaged(where: str, shard: int, what: str) -> Problem:
    remedy = f"remove {layout.clips_path(shard)} and {_RERUN}"
    return Problem(where, what, remedy)


def _one_line(error: Exception) -> str:
    name = "" if isinstance(error, StoreError) else f"{type(error).__name__}: "
    return f"{name}{error}".splitlines()[0][:300]
