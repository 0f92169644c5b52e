"""Reads a store with pandas and Zarr; imports neither torch nor ray.

    store = pipeline.open_store("runs/ssv2")
    store.clips(status="ok").groupby("label").top10_share.median()
    store.scores()[:64]          # NumPy (64, t, y, x), read when asked for
    store.scores("hirescam@embeddings")          # of a further oracle, where there are several

Only committed shards are visible, so a store may be read while it is being written.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as pads
import zarr

from pipeline.clips.grid import TokenGrid
from pipeline.clips.plan import units as list_units
from pipeline.config import OracleConfig
from pipeline.errors import ClipStatus, StoreError
from pipeline.store import layout
from pipeline.store.arrays import decode, metadata_path
from pipeline.store.commits import Commit, Commits
from pipeline.store.info import StoreInfo
from pipeline.store.manifest import read_checked
from pipeline.store.root import Root
from pipeline.store.tables import read_table

T = TypeVar("T")

PENDING = "pending"
"""Key of `Store.summary` for clips whose shard is not committed."""


@dataclass(frozen=True)
class ShardData:
    """One committed shard in memory; row `i` of every member is the same clip.

    Attributes:
        shard: its number.
        clips: the columns of `Store.clips` (n rows), of all oracles.
        scores: float32 (n, t, y, x) in [0, 1], of one oracle; NaN where the clip failed.
        cam: float32 (n, t, y, x), signed and in its own units; NaN where the clip failed.
        embeddings: float16 (n, k, d), or None; NaN where the clip failed.
        embedding_index: int16 (n, k), or None; -1 where the clip failed.
    """

    shard: int
    clips: pd.DataFrame
    scores: npt.NDArray[np.float32]
    cam: npt.NDArray[np.float32]
    embeddings: npt.NDArray[np.float16] | None
    embedding_index: npt.NDArray[np.int16] | None


class Store:
    """A store opened for reading; see `open_store`."""

    def __init__(self, root: Root) -> None:
        self.root = root
        self.info = StoreInfo.read(root)
        self._commits = Commits(root, self.info)
        self._checked: set[tuple[str, str | None]] = set()

    def __repr__(self) -> str:
        return f"Store({self.root.url!r}, {self.num_clips} clips, grid {tuple(self.grid)})"

    @property
    def config(self) -> OracleConfig:
        """The configuration it was built by."""
        return self.info.config

    @property
    def grid(self) -> TokenGrid:
        """Tokens of a clip along time, height and width."""
        return self.info.grid

    @property
    def hidden_size(self) -> int:
        """Length of an embedding."""
        return self.info.hidden_size

    @property
    def label_names(self) -> list[str]:
        """Index = class id; empty where the dataset names none."""
        return list(self.info.label_names)

    @property
    def num_clips(self) -> int:
        """Clips of the plan, committed or not."""
        return self.info.num_clips

    @property
    def num_shards(self) -> int:
        """Shards of the plan, committed or not."""
        return self.info.num_shards

    @property
    def oracles(self) -> list[str]:
        """Names of the oracles whose maps it holds, the first one first."""
        return [str(name) for name in self.config.oracles]

    def column(self, name: str, oracle: str | None = None) -> str:
        """What a column of an oracle is called.

        Args:
            name: `score` of the tokens, or `cam_scale`, `degenerate`, `top10_share` or `gini` of
                the clips.
            oracle: one of `oracles`; None for the first.

        Raises:
            StoreError: the store does not have that oracle.
        """
        return name + self.info.suffix(oracle)

    def shards(self) -> list[int]:
        """Committed shards, ascending, listed afresh."""
        return self._commits.shards()

    def plan(self) -> pd.DataFrame:
        """Every clip there is to do, in order of `clip_id`."""
        data = read_checked(self.root, self.info, layout.PLAN)
        return read_table(data, f"{self.root}/{layout.PLAN}").to_pandas()

    def clips(
        self,
        columns: Collection[str] | None = None,
        status: str | Collection[str] | None = None,
        names: bool = False,
        units: bool = False,
        shards: Iterable[int] | None = None,
    ) -> pd.DataFrame:
        """One row per committed clip, in order of `clip_id`.

        Args:
            columns: of `info.clips_schema`; None gives all.
            status: keep the clips with this status, or one of these.
            names: add `label_name` and `prediction_name` (missing where the class is unknown).
            units: add `unit`, what is one independent draw: the video's group where the dataset
                says one, else the video's id.
            shards: of these committed shards; None reads all.

        Raises:
            StoreError: no such column or status, or the clips table of a shard is damaged.
        """
        conditions = []
        if status is not None:
            wanted = [str(s) for s in ([status] if isinstance(status, str) else status)]
            _known("status", wanted, list(ClipStatus))
            conditions.append(pads.field("status").isin(wanted))
        schema = self.info.clips_schema
        asked = schema.names if columns is None else list(columns)
        beside = {"video_id", layout.GROUP} & set(schema.names) if units else set()
        read = list(dict.fromkeys([*asked, *sorted(beside)]))
        choice = _Choice(schema, read, {"status"} if conditions else (), conditions)
        records = self._commits.read_each(self.shards() if shards is None else sorted(shards))
        table = choice.join(choice.of(commit.table(choice.read)) for _, commit in records)
        frame: pd.DataFrame = table.select(asked).to_pandas()
        if units:
            frame["unit"] = list_units(table)
        if names:
            for column in ("label", "prediction"):
                if column in frame:
                    frame[f"{column}_name"] = frame[column].map(dict(enumerate(self.label_names)))
        return frame

    def tokens(
        self,
        clips: Iterable[int] | None = None,
        labels: Iterable[int] | None = None,
        min_score: float | None = None,
        columns: Collection[str] | None = None,
        oracle: str | None = None,
    ) -> pd.DataFrame:
        """One row per token of the committed clips that are ok: clip_id, label, t, y, x, score.

        A score for each further oracle follows; `column` says what it is called.

        All of a large dataset takes 13 bytes a row (4.5 GB for SSv2): filter, or choose columns.

        Args:
            clips: keep these clip ids; only their shards are read.
            labels: keep these class ids.
            min_score: keep scores of at least this.
            columns: of `info.tokens_schema`; None gives all.
            oracle: whose scores `min_score` is about; None for the first.

        Raises:
            StoreError: no such column or oracle, or the token table of a shard is damaged.
        """
        shards = self.shards()
        conditions, filtered = [], set()
        if clips is not None:
            ids = sorted({int(clip) for clip in clips})
            needed = {clip // self.config.shard_size for clip in ids}
            shards = [shard for shard in shards if shard in needed]
            conditions.append(pads.field("clip_id").isin(pa.array(ids, pa.int32())))
            filtered.add("clip_id")
        if labels is not None:
            wanted = sorted({int(label) for label in labels})
            conditions.append(pads.field("label").isin(pa.array(wanted, pa.int16())))
            filtered.add("label")
        score = self.column("score", oracle)
        if min_score is not None:
            conditions.append(pads.field(score) >= pa.scalar(min_score, pa.float32()))
            filtered.add(score)
        choice = _Choice(self.info.tokens_schema, columns, filtered, conditions)

        def tables() -> Iterator[pa.Table]:
            for shard, commit in self._commits.read_each(shards):

                def read(commit: Commit, rel: str = layout.tokens_path(shard)) -> pa.Table:
                    data = commit.read(rel)
                    return choice.of(read_table(data, f"{self.root}/{rel}", choice.read))

                found = self._beside(shard, commit, read)
                if found is not None:
                    yield found

        found: pd.DataFrame = choice.join(tables()).to_pandas()
        return found

    def scores(self, oracle: str | None = None) -> zarr.Array[Any]:
        """float16 (clip, t, y, x), opened lazily. NaN: failed or not committed (see `clips`).

        Args:
            oracle: one of `oracles`; None for the first.

        Raises:
            StoreError: the store does not have that oracle.
        """
        return self._array("scores" + self.info.suffix(oracle))

    def cam(self, oracle: str | None = None) -> zarr.Array[Any]:
        """float16 (clip, t, y, x): signed cam divided by the clip's `cam_scale`; as `scores`."""
        return self._array("cam" + self.info.suffix(oracle))

    @property
    def embeddings(self) -> zarr.Array[Any] | None:
        """float16 (clip, k, d) patch embeddings, lazy; None where the store keeps none."""
        return self._array("embeddings") if self._has_embeddings else None

    @property
    def embedding_index(self) -> zarr.Array[Any] | None:
        """int16 (clip, k) token numbers of the embeddings, lazy; None where it keeps none."""
        return self._array("embedding_index") if self._has_embeddings else None

    def read_shard(
        self, shard: int, *, embeddings: bool = True, oracle: str | None = None
    ) -> ShardData:
        """Everything about one committed shard, with `cam` in its own units.

        Args:
            shard: its number.
            embeddings: whether to read them and their index, where the store keeps any.
            oracle: whose maps, one of `oracles`; None for the first.

        Raises:
            StoreError: no such shard or oracle, not committed, or damaged.
        """
        suffix = self.info.suffix(oracle)
        commit = self._commits.read(shard)
        wanted = {"scores" + suffix, "cam" + suffix}
        wanted |= {"embeddings", "embedding_index"} if embeddings else set()
        specs = [spec for spec in self.info.arrays if spec.name in wanted]

        def read(commit: Commit) -> ShardData:
            clips = commit.table().to_pandas()
            arrays = {spec.name: self._rows(spec, shard, commit) for spec in specs}
            # What was read is of one commit only if that one still stands.
            if self._commits.read(shard) != commit:
                raise StoreError(f"shard {shard} of {self.root} is being done again")
            scale = clips["cam_scale" + suffix].to_numpy(np.float32)[:, None, None, None]
            return ShardData(
                shard=shard,
                clips=clips,
                scores=arrays["scores" + suffix].astype(np.float32),
                cam=arrays["cam" + suffix].astype(np.float32) * scale,
                embeddings=arrays.get("embeddings"),
                embedding_index=arrays.get("embedding_index"),
            )

        found = None if commit is None else self._beside(shard, commit, read)
        if found is None:
            raise StoreError(
                f"shard {shard} of {self.root} is not committed ({len(self.shards())} of "
                f"{self.num_shards} are): run the same build-oracle again to complete the store, "
                "or wait for the run that is at it"
            )
        return found

    def summary(self) -> dict[str, int]:
        """Clips per status, `ok` first, then the failures there are, then `pending`.

        The numbers add up to `num_clips`.
        """
        counts = self.clips(columns=["status"])["status"].value_counts()
        found = {str(s): int(counts.get(str(s), 0)) for s in ClipStatus}
        kept = {s: n for s, n in found.items() if n or s == ClipStatus.OK.value}
        return kept | {PENDING: self.num_clips - sum(found.values())}

    def num_padded(self) -> int:
        """Committed clips whose video is too short for them, so that some frames repeat."""
        return int(self.clips(columns=["padded"], status=ClipStatus.OK)["padded"].sum())

    def _beside(self, shard: int, commit: Commit, read: Callable[[Commit], T]) -> T | None:
        """What `read` finds of a shard beside its commit record; None if that is gone meanwhile.

        A retry removes the record, replaces the shard's files and commits anew. So what looks like
        damage is read again if the record is another by now.
        """
        while True:
            try:
                return read(commit)
            except StoreError as error:
                now = self._commits.read(shard)
                if now == commit:
                    raise StoreError(f"{error}; see `lite-pipeline verify`") from error
            if now is None:
                return None
            commit = now

    def _rows(self, spec: layout.ArraySpec, shard: int, commit: Commit) -> npt.NDArray[Any]:
        key = spec.chunk_key(shard)
        wanted = key, commit.files.get(key)
        # Once is enough for whoever reads them again and again, as every epoch of a training does:
        # the chunks carry checksums of their own.
        data = commit.read(key, check=wanted not in self._checked)
        self._checked.add(wanted)
        return decode(spec, self.info.num_clips_of(shard), data)

    def _array(self, name: str) -> zarr.Array[Any]:
        read_checked(self.root, self.info, metadata_path(name))  # or Zarr is at a loss for words
        array = zarr.open_array(**self.root.zarr_location(f"{layout.ZARR}/{name}"), mode="r")
        assert isinstance(array, zarr.Array)
        return array

    @property
    def _has_embeddings(self) -> bool:
        return self.config.embeddings_per_clip != 0


class _Choice:
    """Columns and rows of a table: what is asked for, and what must be read for it."""

    def __init__(
        self,
        schema: pa.Schema,
        columns: Collection[str] | None,
        filtered: Collection[str],
        conditions: Iterable[Any],
    ) -> None:
        if columns is not None:
            _known("column", columns, schema.names)
        self._schema = schema
        self._columns = schema.names if columns is None else list(columns)
        self._conditions = list(conditions)
        self.read = list(dict.fromkeys([*self._columns, *filtered]))

    def of(self, table: pa.Table) -> pa.Table:
        """The chosen rows and columns of a table that has the columns `read`."""
        for condition in self._conditions:
            table = table.filter(condition)
        return table.select(self._columns)

    def join(self, tables: Iterable[pa.Table]) -> pa.Table:
        """All of them as one."""
        return pa.concat_tables([self._schema.empty_table().select(self._columns), *tables])


def open_store(url: str | os.PathLike[str] | Root, **storage_options: Any) -> Store:
    """Opens a store for reading.

    Args:
        url: folder or fsspec URL (`s3://bucket/stores/ssv2`).
        storage_options: passed to fsspec.

    Raises:
        StoreNotFoundError: nothing there, or no store.
        StoreError: damaged, or written by a newer release.
    """
    return Store(url if isinstance(url, Root) else Root(url, **storage_options))


def _known(kind: str, wanted: Iterable[str], known: Collection[str]) -> None:
    for name in wanted:
        if name not in known:
            raise StoreError(f"no {kind} is called {name!r}; one of {', '.join(known)}")
