"""A folder of shards: what stores and evaluations have in common.

    FOLDER/
      MANIFEST.json     what it holds, by which configuration; written last when it is begun
      plan.parquet      every clip there is to do
      ...               whatever else is written at the beginning
      COMMITS/shard-N   the commit record of each shard, written last, beside its other files
      runs/             locks and side logs; never part of the committed data

No file of it goes without a digest: the manifest carries those of the files written before it and
its own, a commit record those of its shard and its own.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

from pipeline.config import ClipConfig
from pipeline.errors import StoreError, StoreMismatchError, StoreNotFoundError
from pipeline.store import layout
from pipeline.store.root import Root
from pipeline.store.seal import BLANK, check_digest, is_sealed, seal

_HINTS = {
    "plan_digest": "  (the list of videos, their labels, paths, groups or views; --split, --limit)",
    "backbone_digest": "  (the checkpoint's weights or configuration)",
}
InfoT = TypeVar("InfoT", bound="FolderInfo")


@dataclass(frozen=True, kw_only=True)
class FolderKind:
    """What a kind of folder is called, and what it consists of."""

    noun: str
    manifest: str
    """Name of its manifest."""
    schema_version: int
    commits: str
    """Folder of the commit records."""
    folders: frozenset[str]
    """Folders of data, the commit records' included."""
    command: str
    """The command, with the option that names the folder, that begins it and goes on with it."""
    columns: frozenset[str]
    """Of all its tables."""


@dataclass(frozen=True, kw_only=True)
class FolderInfo(ABC):
    """The contents of a manifest; no clock and no host, so that equal runs give equal files."""

    KIND: ClassVar[FolderKind]

    config: ClipConfig
    num_clips: int
    label_names: tuple[str, ...]
    """Index = class id; empty where the dataset names none."""
    files: Mapping[str, str] = field(default_factory=dict)
    """Path to SHA-256 of the files written before the manifest."""

    @property
    def num_shards(self) -> int:
        """Shards of the plan."""
        return layout.num_shards(self.num_clips, self.config.shard_size)

    def rows(self, shard: int) -> slice:
        """Rows of a shard in the plan and in every array.

        Raises:
            StoreError: no such shard.
        """
        if not 0 <= shard < self.num_shards:
            raise StoreError(f"shard {shard} does not exist: the plan has {self.num_shards}")
        return layout.shard_rows(shard, self.config.shard_size, self.num_clips)

    @property
    def columns(self) -> frozenset[str]:
        """Of all its tables."""
        return self.KIND.columns

    def num_clips_of(self, shard: int) -> int:
        """Clips of a shard; the last may be short."""
        rows = self.rows(shard)
        return rows.stop - rows.start

    def commit_path(self, shard: int) -> str:
        """Path of a shard's commit record inside the folder."""
        return f"{self.KIND.commits}/{layout.shard_name(shard)}"

    @abstractmethod
    def shard_files(self, shard: int) -> list[str]:
        """Paths of a shard's files other than its commit record."""

    @abstractmethod
    def content(self) -> dict[str, Any]:
        """JSON values of all fields but the configuration and the files."""

    @classmethod
    @abstractmethod
    def from_content(cls: type[InfoT], content: dict[str, Any]) -> InfoT:
        """The inverse of `content`, with `config` and `files` beside it.

        Raises:
            KeyError, TypeError, ValueError: it is something else.
        """

    def compared(self) -> dict[str, Any]:
        """What must be the same for two runs to write into one folder."""
        return self.config.identity() | {
            "num_clips": self.num_clips,
            "label_names": self.label_names,
        }

    def to_json(self) -> bytes:
        """Canonical JSON, ending in a newline, with its own digest."""
        content = {
            "schema_version": self.KIND.schema_version,
            "fingerprint": self.config.fingerprint(),
            "config": self.config.to_dict(),
            "num_shards": self.num_shards,
            **self.content(),
            "files": dict(self.files),
            "seal": BLANK,
        }
        return seal((json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())

    @classmethod
    def read(cls: type[InfoT], root: Root) -> InfoT:
        """Reads and checks the manifest of a folder.

        Raises:
            StoreNotFoundError: nothing there, or something else.
            StoreError: it is damaged, or of another schema.
        """
        try:
            data = root.get(cls.KIND.manifest)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise StoreNotFoundError(_why_not_found(root, cls.KIND)) from error
        return cls.from_json(data, f"{root}/{cls.KIND.manifest}")

    @classmethod
    def from_json(cls: type[InfoT], data: bytes, where: str) -> InfoT:
        """The inverse of `to_json`; `where` names the file in errors.

        Raises:
            StoreError: it is damaged, or of another schema.
        """
        kind = cls.KIND
        try:
            content = json.loads(data)
            _check_schema(content.pop("schema_version"), kind, where, sealed=is_sealed(data))
            fingerprint, _ = content.pop("fingerprint"), content.pop("seal")
            info = cls.from_content({k: v for k, v in content.items() if k != "num_shards"})
            if info.config.fingerprint() != fingerprint:
                raise ValueError("the fingerprint is not that of the configuration beside it")
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            if is_sealed(data):
                raise StoreError(
                    f"{where} is whole, but a version of this program between two releases wrote "
                    f"it ({error}): read it with that one, or let `lite-pipeline {kind.command}` "
                    "begin in another folder"
                ) from error
            raise StoreError(
                f"{where} is damaged ({type(error).__name__}: {error}): restore it from a copy, or "
                f"let `lite-pipeline {kind.command}` begin in another folder"
            ) from error
        return info

    def check_continues(self: InfoT, wanted: InfoT, url: str) -> None:
        """Refuses to mix two configurations in one folder.

        Raises:
            StoreMismatchError: lists every field that differs, old -> new.
        """
        old, new = self.compared(), wanted.compared()
        changed = [name for name in old if old[name] != new[name]]
        if changed:
            lines = "\n".join(f"  {_describe(name, old[name], new[name])}" for name in changed)
            raise StoreMismatchError(
                f"{url} was begun by another configuration (stored -> asked for):\n{lines}\n"
                f"Ask for the stored values to continue this {self.KIND.noun}, or choose another "
                "folder."
            )


def read_checked(root: Root, info: FolderInfo, rel: str) -> bytes:
    """A file of the beginning, compared with the manifest's digest.

    Raises:
        StoreError: it is missing or damaged.
    """
    where = f"{root}/{rel}"
    try:
        data = root.get(rel)
    except FileNotFoundError as error:
        raise StoreError(f"{where} is missing; {rewrites(info.KIND)}") from error
    try:
        check_digest(data, info.files[rel], where)
    except StoreError as error:
        raise StoreError(f"{error}; {rewrites(info.KIND)}") from error
    return data


def rewrites(kind: FolderKind) -> str:
    """What to do about a file of the beginning that is damaged."""
    return f"run the same `lite-pipeline {kind.command}` again, which writes it anew"


def partition_in_path(root: Root, info: FolderInfo) -> str | None:
    """A folder above, such as `label=3`, that DuckDB takes for a column of ours.

    It then puts the folder's value in place of the column's; pandas fails, given a list of files.
    """
    for part in root.path.split("/"):
        if part.partition("=")[0] in info.columns and "=" in part:
            return part
    return None


def _check_schema(schema: Any, kind: FolderKind, where: str, *, sealed: bool) -> None:
    ours = kind.schema_version
    if type(schema) is int and schema != ours:
        said = f"{where} has schema version {schema}, this release reads {ours}: "
        if schema < ours:
            raise StoreError(
                said + f'run `lite-pipeline {kind.command}` with the options under "config" in '
                "that file and another folder, or use the release that wrote it"
            )
        if sealed:
            raise StoreError(said + "update lite-pipeline")
    if schema != ours or not sealed:
        raise ValueError("it is not as it was written")


def _describe(name: str, old: Any, new: Any) -> str:
    if name == "label_names":
        return f"label_names: {len(old)} names -> {_first_difference(old, new)}"
    return f"{name}: {_short(name, old)} -> {_short(name, new)}{_HINTS.get(name, '')}"


def _short(name: str, value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {str(item)[:12]}" for key, item in value.items()) or "none"
    if isinstance(value, tuple) and name != "token_grid":
        return ", ".join(map(str, value)) or "none"
    return str(value)[:12] if name.endswith("_digest") else str(value)


def _first_difference(old: Sequence[str], new: Sequence[str]) -> str:
    for index, (a, b) in enumerate(zip(old, new, strict=False)):
        if a != b:
            return f"{len(new)} names; class {index} is {b!r}, was {a!r}"
    return f"{len(new)} names"


def _why_not_found(root: Root, kind: FolderKind) -> str:
    names = root.names()
    command = f"`lite-pipeline {kind.command} {root}`"
    if not names:
        return f"no {kind.noun} at {root}: begin one with {command}"
    shown = {name for name in names if not name.startswith(".")}
    if layout.PLAN in shown and shown <= {layout.PLAN, layout.RUNS} | kind.folders:
        return (
            f"{root} is an unfinished {kind.noun} without {kind.manifest}: the run that began it "
            f"was killed; run the same {command} again to complete it"
        )
    return (
        f"{root} is no {kind.noun}: it has no {kind.manifest} (found {', '.join(names[:5])}"
        f"{', ...' if len(names) > 5 else ''})"
    )
