"""An evaluation on disk: begun or continued by a run, read by everybody else."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, ClassVar

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import StoreError
from pipeline.store.begin import begin
from pipeline.store.commits import Commits, commit_bytes
from pipeline.store.layout import PLAN
from pipeline.store.manifest import FolderInfo, FolderKind, read_checked
from pipeline.store.root import Root
from pipeline.store.tables import plan_bytes, read_table
from selector.evaluation import layout
from selector.evaluation.config import EvalConfig
from selector.evaluation.timing import Timing

EVALUATION = FolderKind(
    noun="evaluation",
    manifest=layout.EVALUATION_JSON,
    schema_version=layout.SCHEMA_VERSION,
    commits=layout.RESULTS,
    folders=frozenset({layout.RESULTS}),
    command="evaluate --out",
    columns=frozenset(layout.results_schema(num_views=2).names),
)


@dataclass(frozen=True, kw_only=True)
class EvaluationInfo(FolderInfo):
    """The contents of `evaluation.json`; no path of this machine's."""

    KIND: ClassVar[FolderKind] = EVALUATION

    config: EvalConfig
    settings: tuple[Any, ...]
    """The method's setting, for each of the configuration's conditions; None for the full model."""
    num_kept: tuple[int | None, ...]
    """Tokens that reach the head, for each condition; None where each clip's row says it."""
    gmacs: tuple[float | None, ...]
    """GMACs of one view with what deciding costs, for each condition; None for an oracle, and
    where each clip's row says it."""
    gmacs_backbone: tuple[float | None, ...]
    """GMACs of one view without that, for each condition; None where each clip's row says it."""
    gmacs_embed: float
    """GMACs of embedding one view, part of every condition's."""

    def shard_files(self, shard: int) -> list[str]:
        """None: the results are the commit record."""
        return []

    def content(self) -> dict[str, Any]:
        """JSON values of all fields but the configuration and the files."""
        names = [f.name for f in fields(self) if f.name not in ("config", "files")]
        return {name: getattr(self, name) for name in names}

    @classmethod
    def from_content(cls, content: dict[str, Any]) -> EvaluationInfo:
        """The inverse of `content`, with `config` and `files` beside it."""
        config = EvalConfig(**_tuples(content.pop("config")))
        return cls(config=config, **_tuples(content))


class Evaluation:
    """A folder of results, finished or not.

    Args:
        url: folder or fsspec URL.

    Raises:
        StoreNotFoundError: no evaluation there.
        StoreError: `evaluation.json` is damaged, or of another schema.
    """

    def __init__(self, url: str | Root) -> None:
        self.root = url if isinstance(url, Root) else Root(url)
        self.info = EvaluationInfo.read(self.root)
        self._commits = Commits(self.root, self.info)

    @property
    def config(self) -> EvalConfig:
        """What was evaluated."""
        return self.info.config

    def plan(self, shard: int | None = None) -> pa.Table:
        """The frozen plan, or the rows of one shard, in order of `clip_id`.

        Raises:
            StoreError: no such shard, or the plan is damaged.
        """
        if shard is None:
            return self._plan
        rows = self.info.rows(shard)
        return self._plan.slice(rows.start, rows.stop - rows.start)

    @cached_property
    def _plan(self) -> pa.Table:
        return read_table(read_checked(self.root, self.info, PLAN), f"{self.root}/{PLAN}")

    def shards(self) -> list[int]:
        """Committed shards, ascending, listed afresh."""
        return self._commits.shards()

    def pending(self) -> list[int]:
        """Shards still to do, ascending."""
        return self._commits.pending()

    def commit(self, shard: int, rows: pa.Table) -> None:
        """Commits a shard.

        Args:
            shard: its number.
            rows: `layout.results_schema`, clip-major.
        """
        data = commit_bytes(rows, self.info, shard, files={})
        self.root.put(self.info.commit_path(shard), data)

    def read_shard(self, shard: int, columns: Collection[str] | None = None) -> pa.Table:
        """One shard's rows, clip-major; without `padded` where an older release wrote them.

        Raises:
            StoreError: not committed, damaged, or not a rectangle of clips and conditions.
        """
        where, again = self.info.commit_path(shard), "run the same evaluation again"
        try:
            commit = self._commits.read(shard)
            if commit is not None and columns is not None and layout.PADDED in columns:
                there = pq.read_schema(pa.BufferReader(commit.data)).names
                columns = [name for name in columns if name != layout.PADDED or name in there]
            table = None if commit is None else commit.table(columns)
        except StoreError as error:
            raise StoreError(f"{error}: remove it and {again}") from error
        if table is None:
            raise StoreError(f"{self.root}/{where} is missing: {again}")
        wanted = self.info.num_clips_of(shard) * len(self.config.conditions)
        if table.num_rows != wanted:
            raise StoreError(
                f"{self.root}/{where} has {table.num_rows} rows instead of {wanted}: remove it "
                f"and {again}"
            )
        return table

    def rows(
        self, columns: Collection[str] | None = None, methods: Collection[str] | None = None
    ) -> pd.DataFrame:
        """All committed rows as pandas sees them, of all or some methods; memory follows."""
        wanted = None if columns is None else list(dict.fromkeys([*columns, "method"]))
        frames = []
        for shard in self.shards():
            frame = self.read_shard(shard, wanted).to_pandas()
            frames.append(frame if methods is None else frame[frame["method"].isin(methods)])
        if not frames:
            raise StoreError(f"{self.root} has no committed results yet")
        joined = pd.concat(frames, ignore_index=True)
        return joined if columns is None else joined[list(columns)]

    def timing(self) -> Timing:
        """The seconds of all shards whose timing is there."""
        total = Timing()
        for name in self.root.names(layout.TIMINGS):
            if not name.startswith("."):
                total.add(Timing.from_json(self.root.get(f"{layout.TIMINGS}/{name}")))
        return total


@contextmanager
def begun(root: Root, wanted: EvaluationInfo, plan: pa.Table) -> Iterator[Evaluation]:
    """Begins an evaluation or continues one of the same configuration; alone until the end.

    Raises:
        StoreMismatchError: the folder holds another evaluation; lists the fields that differ.
        StoreError: another run is writing, or the folder holds something else.
    """
    _, lock = begin(root, wanted, {PLAN: plan_bytes(plan, wanted.config.shard_size)})
    try:
        yield Evaluation(root)
    finally:
        lock.release()


def _tuples(content: dict[str, Any]) -> dict[str, Any]:
    """JSON knows lists only; frozen settings hold tuples."""
    return {key: _frozen(value) for key, value in content.items()}


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value
