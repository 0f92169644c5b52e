"""Reads a store with pandas and Zarr; imports neither torch nor ray.

    store = pipeline.open_store("runs/ssv2")
    store.clips(status="ok").groupby("label").top10_share.median()
    store.scores[:64]            # NumPy (64, t, y, x), read when asked for

Only committed shards are visible, so a store may be read while it is being written.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as pads
import zarr

from pipeline.clips.grid import TokenGrid
from pipeline.config import OracleConfig
from pipeline.errors import ClipStatus, StoreError
from pipeline.store import layout
from pipeline.store.info import read_info
from pipeline.store.root import Root
from pipeline.store.tables import committed_shards

PENDING = "pending"
"""Key of `Store.summary` for clips whose shard is not committed."""


@dataclass(frozen=True)
class ShardData:
    """One committed shard in memory; row `i` of every member is the same clip.

    Attributes:
        shard: its number.
        clips: `layout.CLIPS_SCHEMA` (n rows).
        scores: float32 (n, t, y, x) in [0, 1]; NaN where the clip failed.
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
        self.info = read_info(root)

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
        return self.info.label_names

    @property
    def num_clips(self) -> int:
        """Clips of the plan, committed or not."""
        return self.info.num_clips

    @property
    def num_shards(self) -> int:
        """Shards of the plan, committed or not."""
        return self.info.num_shards

    def shards(self) -> list[int]:
        """Committed shards, ascending, listed afresh."""
        return sorted(committed_shards(self.root))

    def plan(self) -> pd.DataFrame:
        """Every clip there is to do, in order of `clip_id`."""
        return self._read([layout.PLAN], layout.PLAN_SCHEMA).to_pandas()

    def clips(
        self,
        columns: Collection[str] | None = None,
        status: str | Collection[str] | None = None,
        names: bool = False,
    ) -> pd.DataFrame:
        """One row per committed clip, in order of `clip_id`.

        Args:
            columns: of `layout.CLIPS_SCHEMA`; None gives all.
            status: keep the clips with this status, or one of these.
            names: add `label_name` and `prediction_name` (missing where the class is unknown).

        Raises:
            StoreError: no such column or status.
        """
        where = None
        if status is not None:
            wanted = [str(s) for s in ([status] if isinstance(status, str) else status)]
            _known("status", wanted, list(ClipStatus))
            where = pads.field("status").isin(wanted)
        paths = [layout.clips_path(shard) for shard in self.shards()]
        frame = self._read(paths, layout.CLIPS_SCHEMA, columns, where).to_pandas()
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
    ) -> pd.DataFrame:
        """One row per token of the committed clips that are ok: clip_id, label, t, y, x, score.

        All of a large dataset takes 13 bytes a row (4.5 GB for SSv2): filter, or choose columns.

        Args:
            clips: keep these clip ids; only their shards are read.
            labels: keep these class ids.
            min_score: keep scores of at least this.
            columns: of `layout.TOKENS_SCHEMA`; None gives all.
        """
        shards = self.shards()
        where = None
        conditions = []
        if clips is not None:
            ids = sorted({int(clip) for clip in clips})
            needed = {clip // self.config.shard_size for clip in ids}
            shards = [shard for shard in shards if shard in needed]
            conditions.append(pads.field("clip_id").isin(pa.array(ids, pa.int32())))
        if labels is not None:
            wanted = sorted({int(label) for label in labels})
            conditions.append(pads.field("label").isin(pa.array(wanted, pa.int16())))
        if min_score is not None:
            conditions.append(pads.field("score") >= pa.scalar(min_score, pa.float32()))
        for condition in conditions:
            where = condition if where is None else where & condition
        paths = [layout.tokens_path(shard) for shard in shards]
        return self._read(paths, layout.TOKENS_SCHEMA, columns, where).to_pandas()

    @property
    def scores(self) -> zarr.Array[Any]:
        """float16 (clip, t, y, x), opened lazily. NaN: failed or not committed (see `clips`)."""
        return self._array("scores")

    @property
    def cam(self) -> zarr.Array[Any]:
        """float16 (clip, t, y, x): signed cam divided by the clip's `cam_scale`; lazy."""
        return self._array("cam")

    @property
    def embeddings(self) -> zarr.Array[Any] | None:
        """float16 (clip, k, d) patch embeddings, lazy; None where the store keeps none."""
        return self._array("embeddings") if self._has_embeddings else None

    @property
    def embedding_index(self) -> zarr.Array[Any] | None:
        """int16 (clip, k) token numbers of the embeddings, lazy; None where it keeps none."""
        return self._array("embedding_index") if self._has_embeddings else None

    def read_shard(self, shard: int) -> ShardData:
        """Everything about one committed shard, with `cam` in its own units.

        Raises:
            StoreError: no such shard, not committed, or damaged.
        """
        rows = self.info.rows(shard)
        committed = self.shards()
        if shard not in committed:
            raise StoreError(
                f"shard {shard} of {self.root} is not committed ({len(committed)} of "
                f"{self.num_shards} are): run the same build-oracle again to complete the store"
            )
        clips = self._read([layout.clips_path(shard)], layout.CLIPS_SCHEMA).to_pandas()
        arrays: dict[str, Any] = {}
        for name in self._array_names:
            try:
                arrays[name] = self._array(name)[rows]
            except (ValueError, RuntimeError, OSError) as error:
                raise StoreError(
                    f"{self.root}/{layout.ZARR}/{name} cannot be read at shard {shard} "
                    f"({error}); see `lite-pipeline verify`"
                ) from error
        scale = clips["cam_scale"].to_numpy(np.float32)[:, None, None, None]
        return ShardData(
            shard=shard,
            clips=clips,
            scores=arrays["scores"].astype(np.float32),
            cam=arrays["cam"].astype(np.float32) * scale,
            embeddings=arrays.get("embeddings"),
            embedding_index=arrays.get("embedding_index"),
        )

    def summary(self) -> dict[str, int]:
        """Clips per status, `ok` first, then the failures there are, then `pending`.

        The numbers add up to `num_clips`.
        """
        counts = self.clips(columns=["status"])["status"].value_counts()
        found = {str(s): int(counts.get(str(s), 0)) for s in ClipStatus}
        kept = {s: n for s, n in found.items() if n or s == ClipStatus.OK.value}
        return kept | {PENDING: self.num_clips - sum(found.values())}

    @cached_property
    def _group(self) -> zarr.Group:
        try:
            return zarr.open_group(**self.root.zarr_location(layout.ZARR), mode="r")
        except (FileNotFoundError, ValueError) as error:
            raise StoreError(
                f"{self.root}/{layout.ZARR} cannot be opened ({error}); see `lite-pipeline verify`"
            ) from error

    @property
    def _has_embeddings(self) -> bool:
        return self.config.tokens_per_clip != 0

    @property
    def _array_names(self) -> list[str]:
        return [spec.name for spec in self.info.arrays]

    def _array(self, name: str) -> zarr.Array[Any]:
        try:
            array = self._group[name]
        except KeyError as error:
            raise StoreError(
                f"{self.root}/{layout.ZARR} has no array {name!r}; see `lite-pipeline verify`"
            ) from error
        assert isinstance(array, zarr.Array)
        return array

    def _read(
        self,
        paths: list[str],
        schema: pa.Schema,
        columns: Collection[str] | None = None,
        where: Any = None,
    ) -> pa.Table:
        """Rows of several files in their order; an explicit schema, so that none is guessed."""
        if columns is not None:
            _known("column", columns, schema.names)
        chosen = schema.names if columns is None else list(columns)
        if not paths:
            return schema.empty_table().select(chosen)
        full = [self.root.join(path) for path in paths]
        try:
            found = pads.dataset(full, schema=schema, format="parquet", filesystem=self.root.fs)
            return found.to_table(columns=chosen, filter=where)
        except (pa.ArrowException, OSError) as error:
            raise StoreError(
                f"{self.root} is damaged ({error}); `lite-pipeline verify` says where"
            ) from error


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
