"""An evaluation on disk: begun or continued by a run, read by everybody else."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import StoreError, StoreMismatchError, StoreNotFoundError
from pipeline.store.layout import num_shards, parse_shard_name, shard_rows
from pipeline.store.lock import StoreLock
from pipeline.store.root import TEMP_SUFFIX, Root
from selector.evaluation import layout
from selector.evaluation.config import EvalConfig
from selector.evaluation.timing import Timing


@dataclass(frozen=True, kw_only=True)
class EvaluationInfo:
    """The contents of `evaluation.json`; no clock, host or path of this machine's."""

    config: EvalConfig
    num_clips: int
    label_names: tuple[str, ...]
    """Index = class id."""
    settings: tuple[Any, ...]
    """The method's setting, for each of the configuration's conditions; None for the full model."""
    num_kept: tuple[int, ...]
    """Tokens that reach the head, for each condition."""
    gmacs: tuple[float | None, ...]
    """GMACs of one view with what deciding costs, for each condition; None for an oracle."""
    gmacs_backbone: tuple[float, ...]
    """GMACs of one view without that, for each condition."""
    gmacs_embed: float
    """GMACs of embedding one view, part of every condition's."""

    @property
    def num_shards(self) -> int:
        """Shards of the plan."""
        return num_shards(self.num_clips, self.config.shard_size)

    def num_clips_of(self, shard: int) -> int:
        """Clips of a shard; the last may be short."""
        rows = shard_rows(shard, self.config.shard_size, self.num_clips)
        return rows.stop - rows.start

    def to_json(self) -> bytes:
        """Canonical JSON, ending in a newline."""
        content = {
            "schema_version": layout.SCHEMA_VERSION,
            "fingerprint": self.config.fingerprint(),
        } | {f.name: getattr(self, f.name) for f in fields(self)}
        content["config"] = self.config.to_dict()
        return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()

    @classmethod
    def from_json(cls, text: bytes, where: str = layout.EVALUATION_JSON) -> EvaluationInfo:
        """The inverse of `to_json`; `where` names the file in errors.

        Raises:
            ValueError: it is something else.
            StoreError: it is of another schema.
        """
        content = json.loads(text)
        version, fingerprint = content.pop("schema_version"), content.pop("fingerprint")
        if version != layout.SCHEMA_VERSION:
            raise StoreError(
                f"{where} has schema version {version}, this release reads "
                f"{layout.SCHEMA_VERSION}: evaluate into another folder, or use the release that "
                "wrote it"
            )
        content["config"] = EvalConfig(**_tuples(content["config"]))
        info = cls(**_tuples(content))
        if info.config.fingerprint() != fingerprint:
            raise ValueError("the fingerprint is not that of the configuration beside it")
        return info


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
        where = f"{self.root}/{layout.EVALUATION_JSON}"
        try:
            text = self.root.get(layout.EVALUATION_JSON)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise StoreNotFoundError(
                f"no evaluation at {self.root}: begin one with `lite-pipeline evaluate --out "
                f"{self.root}`"
            ) from error
        try:
            self.info = EvaluationInfo.from_json(text, where)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise StoreError(
                f"{where} is damaged ({type(error).__name__}: {error}): restore it from a copy, "
                "or evaluate into another folder"
            ) from error

    @property
    def config(self) -> EvalConfig:
        """What was evaluated."""
        return self.info.config

    def plan(self, shard: int | None = None) -> pa.Table:
        """The frozen plan, or the rows of one shard, in order of `clip_id`."""
        filters = None if shard is None else [("shard", "=", shard)]
        return _read(self.root, layout.PLAN, filters=filters)

    def shards(self) -> list[int]:
        """Committed shards, ascending, listed afresh."""
        found = (parse_shard_name(name) for name in self.root.names(layout.RESULTS))
        return sorted(shard for shard in found if shard is not None)

    def pending(self) -> list[int]:
        """Shards still to do, ascending."""
        return sorted(set(range(self.info.num_shards)) - set(self.shards()))

    def read_shard(self, shard: int, columns: Collection[str] | None = None) -> pa.Table:
        """One shard's rows, clip-major.

        Raises:
            StoreError: missing, damaged, or not a rectangle of clips and conditions.
        """
        table = _read(self.root, layout.results_path(shard), columns)
        wanted = self.info.num_clips_of(shard) * len(self.config.conditions)
        if table.num_rows != wanted:
            raise StoreError(
                f"{self.root}/{layout.results_path(shard)} has {table.num_rows} rows instead of "
                f"{wanted}: remove it and run the same evaluation again"
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
    _refuse_foreign(root)
    lock = StoreLock(root)
    try:
        if root.exists(layout.EVALUATION_JSON):
            _check_continues(Evaluation(root).info, wanted, root)
        else:
            root.put(layout.PLAN, layout.results_bytes(plan))
            root.put(layout.EVALUATION_JSON, wanted.to_json())
        for path in root.walk():
            if path.rpartition("/")[2].startswith(".") and path.endswith(TEMP_SUFFIX):
                root.remove(path)
        yield Evaluation(root)
    finally:
        lock.release()


def _refuse_foreign(root: Root) -> None:
    names = [name for name in root.names() if not name.endswith(TEMP_SUFFIX)]
    foreign = sorted(set(names) - {layout.PLAN, layout.RUNS})
    if layout.EVALUATION_JSON not in names and foreign:
        raise StoreError(
            f"{root} is no evaluation and not empty (found {', '.join(foreign[:5])}): use a new "
            "folder"
        )


def _check_continues(stored: EvaluationInfo, wanted: EvaluationInfo, root: Root) -> None:
    old, new = stored.config.identity(), wanted.config.identity()
    old, new = old | {"label_names": stored.label_names}, new | {"label_names": wanted.label_names}
    lines = [
        f"  {name}: {_short(name, old[name])} -> {_short(name, new[name])}"
        for name in old
        if old[name] != new[name]
    ]
    if lines:
        raise StoreMismatchError(
            f"{root} holds another evaluation (stored -> asked for):\n" + "\n".join(lines) + "\n"
            "Ask for the stored values to continue it, or evaluate into another folder."
        )


def _short(name: str, value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {item[:12]}" for key, item in value.items()) or "none"
    if name.endswith("_digest"):
        return str(value)[:12]
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _tuples(content: dict[str, Any]) -> dict[str, Any]:
    """JSON knows lists only; frozen settings hold tuples."""
    return {key: _frozen(value) for key, value in content.items()}


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def _read(
    root: Root, rel: str, columns: Collection[str] | None = None, filters: Any = None
) -> pa.Table:
    try:
        return pq.read_table(
            root.join(rel),
            columns=None if columns is None else list(columns),
            filters=filters,
            filesystem=root.fs,
            partitioning=None,
            page_checksum_verification=True,
        )
    except FileNotFoundError as error:
        raise StoreError(f"{root}/{rel} is missing: run the same evaluation again") from error
    except (pa.ArrowException, OSError) as error:
        raise StoreError(
            f"{root}/{rel} cannot be read ({error}): remove it and run the same evaluation again"
        ) from error
