"""`store.json`: what a store holds, by which configuration, and whether it may be continued."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field, fields
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from pipeline.clips.grid import TokenGrid
from pipeline.config import OracleConfig
from pipeline.errors import ConfigError, StoreError, StoreMismatchError, StoreNotFoundError
from pipeline.store import layout
from pipeline.store.root import Root

_log = logging.getLogger(__name__)

LIBRARIES = ("av", "grad-cam", "numcodecs", "numpy", "pyarrow", "torch", "transformers", "zarr")
"""Packages whose release may move a byte of the committed files."""


@dataclass(frozen=True, kw_only=True)
class StoreInfo:
    """The contents of `store.json`; no clock and no host, so that equal builds are equal files."""

    config: OracleConfig
    grid: TokenGrid
    hidden_size: int
    num_clips: int
    label_names: list[str]
    """Index = class id; empty where the dataset names none."""
    libraries: dict[str, str] = field(default_factory=dict)
    """Releases at creation; a later release is warned about, not refused."""

    @property
    def num_shards(self) -> int:
        """Shards of the plan."""
        return layout.num_shards(self.num_clips, self.config.shard_size)

    @property
    def arrays(self) -> list[layout.ArraySpec]:
        """The Zarr arrays of this store."""
        return layout.array_specs(
            self.num_clips,
            self.grid,
            self.config.tokens_per_clip,
            self.hidden_size,
            self.config.shard_size,
        )

    def rows(self, shard: int) -> slice:
        """Rows of a shard in the plan and in every array.

        Raises:
            StoreError: no such shard.
        """
        if not 0 <= shard < self.num_shards:
            raise StoreError(f"shard {shard} does not exist: the plan has {self.num_shards}")
        return layout.shard_rows(shard, self.config.shard_size, self.num_clips)

    def to_json(self) -> bytes:
        """Canonical JSON, ending in a newline."""
        content = {
            "schema_version": layout.SCHEMA_VERSION,
            "fingerprint": self.config.fingerprint(),
            "config": self.config.to_dict(),
            "token_grid": self.grid._asdict(),
            "hidden_size": self.hidden_size,
            "num_clips": self.num_clips,
            "num_shards": self.num_shards,
            "label_names": self.label_names,
            "libraries": self.libraries,
        }
        return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()

    def check_continues(self, wanted: StoreInfo, url: str) -> None:
        """Refuses to mix two configurations in one store; warns about other library releases.

        Raises:
            StoreMismatchError: lists every field that differs, old -> new.
        """
        differences = self._differences(wanted)
        if differences:
            lines = "\n".join(f"  {line}" for line in differences)
            raise StoreMismatchError(
                f"{url} was built by another configuration (stored -> asked for):\n{lines}\n"
                "Ask for the stored values to continue it, or build into another folder."
            )
        for name, release in wanted.libraries.items():
            old = self.libraries.get(name)
            if old != release:
                _log.warning(
                    "%s was begun with %s %s and goes on with %s: the new shards may differ in "
                    "their last bits from what the old release would have written",
                    url,
                    name,
                    old,
                    release,
                )

    def _differences(self, wanted: StoreInfo) -> list[str]:
        old, new = self.config.identity(), wanted.config.identity()
        pairs = {name: (old[name], new[name]) for name in old}
        for name in ("grid", "hidden_size", "num_clips", "label_names"):
            pairs[name] = (getattr(self, name), getattr(wanted, name))
        changed = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
        return [_describe(name, a, b) for name, (a, b) in changed.items()]


_HINTS = {
    "plan_digest": "  (the list of videos, their labels, paths or views; --split, --limit)",
    "backbone_digest": "  (the checkpoint's weights or configuration)",
}


def _describe(name: str, old: Any, new: Any) -> str:
    if name == "label_names":
        return f"label_names: {len(old)} names -> {_first_difference(old, new)}"
    if name.endswith("_digest"):
        old, new = old[:12], new[:12]
    elif isinstance(old, TokenGrid):
        old, new = tuple(old), tuple(new)
    return f"{name}: {old} -> {new}{_HINTS.get(name, '')}"


def _first_difference(old: list[str], new: list[str]) -> str:
    for index, (a, b) in enumerate(zip(old, new, strict=False)):
        if a != b:
            return f"{len(new)} names; class {index} is {b!r}, was {a!r}"
    return f"{len(new)} names"


def library_versions() -> dict[str, str]:
    """Installed releases of `LIBRARIES`, read without importing them."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def read_info(root: Root) -> StoreInfo:
    """Reads and checks `store.json`.

    Raises:
        StoreNotFoundError: nothing there, or something that is no store.
        StoreError: a damaged file, or one of a newer schema.
    """
    where = f"{root}/{layout.STORE_JSON}"
    try:
        text = root.get(layout.STORE_JSON)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise StoreNotFoundError(_why_not_found(root)) from error
    try:
        content = json.loads(text)
        schema = content["schema_version"]
        if isinstance(schema, int) and schema > layout.SCHEMA_VERSION:
            raise StoreError(
                f"{where} has schema version {schema}, this release reads up to "
                f"{layout.SCHEMA_VERSION}: update lite-pipeline"
            )
        if schema == 1:
            raise StoreError(
                f"{where} has schema version 1, this release reads {layout.SCHEMA_VERSION}: "
                'build it again with `lite-pipeline build-oracle` and the options under "config" '
                "in that file into another folder, or use the release that wrote it"
            )
        if schema != layout.SCHEMA_VERSION:
            raise ValueError(f"schema_version is {schema!r}")
        return _from_json(content)
    except (KeyError, TypeError, ValueError, AttributeError, ConfigError) as error:
        raise StoreError(
            f"{where} is damaged ({type(error).__name__}: {error}): restore it from a copy, or "
            "build into another folder"
        ) from error


def _from_json(content: dict[str, Any]) -> StoreInfo:
    unknown = set(content["config"]) - {f.name for f in fields(OracleConfig)}
    if unknown:
        raise ValueError(f"unknown fields in config: {', '.join(sorted(unknown))}")
    info = StoreInfo(
        config=OracleConfig(**content["config"]),
        grid=TokenGrid(**content["token_grid"]),
        hidden_size=int(content["hidden_size"]),
        num_clips=int(content["num_clips"]),
        label_names=[str(name) for name in content["label_names"]],
        libraries=dict(content["libraries"]),
    )
    if content["fingerprint"] != info.config.fingerprint():
        raise ValueError("the fingerprint is not that of the config beside it")
    return info


def _why_not_found(root: Root) -> str:
    names = root.names()
    if not names:
        return f"no store at {root}: build one with `lite-pipeline build-oracle --store {root}`"
    if layout.PLAN in names or layout.ZARR in names:
        return (
            f"{root} is an unfinished store without {layout.STORE_JSON}: the run that began it "
            "was killed; run the same `lite-pipeline build-oracle` again to complete it"
        )
    return (
        f"{root} is not a store: it has no {layout.STORE_JSON} (found {', '.join(names[:5])}"
        f"{', ...' if len(names) > 5 else ''})"
    )
