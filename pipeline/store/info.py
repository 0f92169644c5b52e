"""`store.json`: what a store holds, by which configuration, and whether it may be continued."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from typing import Any, ClassVar

import pyarrow as pa

from pipeline.clips.grid import TokenGrid
from pipeline.config import OracleConfig, OracleName
from pipeline.errors import StoreError
from pipeline.store import layout
from pipeline.store.manifest import FolderInfo, FolderKind

_log = logging.getLogger(__name__)

LIBRARIES = ("av", "grad-cam", "numcodecs", "numpy", "pyarrow", "torch", "transformers", "zarr")
"""Packages whose release may move a byte of the committed files."""

STORE = FolderKind(
    noun="store",
    manifest=layout.STORE_JSON,
    schema_version=layout.SCHEMA_VERSION,
    commits=layout.CLIPS,
    folders=frozenset({layout.CLIPS, layout.TOKENS, layout.ZARR}),
    command="build-oracle --store",
    columns=frozenset(layout.CLIPS_SCHEMA.names + layout.TOKENS_SCHEMA.names),
)


@dataclass(frozen=True, kw_only=True)
class StoreInfo(FolderInfo):
    """The contents of `store.json`."""

    KIND: ClassVar[FolderKind] = STORE

    config: OracleConfig
    grid: TokenGrid
    hidden_size: int
    groups: bool = False
    """Whether the plan and the clips tables have the column `group`."""
    libraries: Mapping[str, str] = field(default_factory=dict)
    """Releases at creation; a later release is warned about, not refused."""

    @property
    def arrays(self) -> list[layout.ArraySpec]:
        """The Zarr arrays of this store."""
        return layout.array_specs(
            self.num_clips,
            self.grid,
            self.config.embeddings_per_clip,
            self.hidden_size,
            self.config.shard_size,
            self.suffixes[1:],
        )

    @cached_property
    def suffixes(self) -> tuple[str, ...]:
        """Of each oracle, what follows the names of its arrays and columns; empty for the first."""
        return ("", *(name.suffix for name in self.config.oracles[1:]))

    def suffix(self, oracle: str | None) -> str:
        """The suffix of an oracle by its name; None is the first.

        Raises:
            ConfigError: it is no name.
            StoreError: the store does not have that oracle.
        """
        if oracle is None:
            return ""
        names = self.config.oracles
        name = OracleName.parse(oracle)
        if name not in names:
            raise StoreError(
                f"the store has no oracle {oracle!r}; it has {', '.join(map(str, names))}. Name "
                "one of these, or build a store with it by `lite-pipeline build-oracle --oracle`"
            )
        return self.suffixes[names.index(name)]

    @property
    def plan_schema(self) -> pa.Schema:
        """Of its plan."""
        return layout.plan_schema(self.groups)

    @property
    def clips_schema(self) -> pa.Schema:
        """Of its clips tables."""
        return layout.clips_schema(self.suffixes[1:], self.groups)

    @property
    def tokens_schema(self) -> pa.Schema:
        """Of its token tables."""
        return layout.tokens_schema(self.suffixes[1:])

    @property
    def columns(self) -> frozenset[str]:
        """As `FolderInfo.columns`."""
        return frozenset(self.clips_schema.names + self.tokens_schema.names)

    def shard_files(self, shard: int) -> list[str]:
        """Paths of a shard's arrays and of its token table, in the order they are written."""
        return [*(spec.chunk_key(shard) for spec in self.arrays), layout.tokens_path(shard)]

    def content(self) -> dict[str, Any]:
        """JSON values of all fields but the configuration and the files."""
        return {
            "token_grid": self.grid._asdict(),
            "hidden_size": self.hidden_size,
            "num_clips": self.num_clips,
            "label_names": list(self.label_names),
            # Said only where there are some: a store without them is as it always was.
            **({"groups": True} if self.groups else {}),
            "libraries": dict(self.libraries),
        }

    @classmethod
    def from_content(cls, content: dict[str, Any]) -> StoreInfo:
        """The inverse of `content`, with `config` and `files` beside it."""
        config, grid = OracleConfig(**content.pop("config")), TokenGrid(**content.pop("token_grid"))
        names = tuple(content.pop("label_names"))
        return cls(config=config, grid=grid, label_names=names, **content)

    def compared(self) -> dict[str, Any]:
        """What must be the same for two runs to write into one store."""
        return super().compared() | {
            # A part of the identity only where there are some.
            "further_oracles": self.config.further_oracles,
            "token_grid": tuple(self.grid),
            "hidden_size": self.hidden_size,
        }

    def check_continues(self, wanted: StoreInfo, url: str) -> None:
        """Refuses to mix two configurations in one store; warns about other library releases.

        Raises:
            StoreMismatchError: lists every field that differs, old -> new.
        """
        super().check_continues(wanted, url)
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


def library_versions() -> dict[str, str]:
    """Installed releases of `LIBRARIES`, read without importing them."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
