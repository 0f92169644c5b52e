"""Finds videos below the data root with one listing per folder instead of one `stat` per video."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from datasets_spec.errors import DatasetSpecError
from datasets_spec.types import SPLIT_ALIASES, DatasetSpec, Row


class Listing:
    """The files below a folder; every directory is read once, when first asked for."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._names: dict[str, frozenset[str]] = {}

    def has_file(self, path: str) -> bool:
        """Whether the folder of `path` lists it as anything but a folder; opens nothing."""
        folder, _, name = path.rpartition("/")
        return name in self.names(folder)

    def names(self, folder: str) -> frozenset[str]:
        """Names in `folder` (relative, forward slashes) that are no folders; empty if none."""
        if folder not in self._names:
            try:
                with os.scandir(self.root / folder) as entries:
                    # A link is taken for a file: looking through it would cost a `stat` each.
                    found = frozenset(
                        entry.name for entry in entries if not entry.is_dir(follow_symlinks=False)
                    )
            except (FileNotFoundError, NotADirectoryError):
                found = frozenset()
            except OSError as error:
                raise DatasetSpecError(
                    f"cannot list {self.root / folder}: {error.strerror}"
                ) from error
            self._names[folder] = found
        return self._names[folder]


def check_root(data_root: str | Path) -> Path:
    """The data root as a path.

    Raises:
        DatasetSpecError: it is no folder.
    """
    root = Path(data_root).expanduser()
    if not root.is_dir():
        raise DatasetSpecError(f"no folder at the data root {str(data_root)!r}")
    return root


def first_existing(root: Path, candidates: Sequence[str]) -> Path | None:
    """The first candidate that is a file below `root`; an absolute one stands for itself."""
    return next((root / name for name in candidates if (root / name).is_file()), None)


def annotation_files(spec: DatasetSpec, root: Path, split: str) -> list[Path]:
    """The files of the first candidate that exists; several only where it is a glob pattern.

    Raises:
        DatasetSpecError: none exists; lists what was looked for.
    """
    for candidate in spec.splits[split]:
        if found := _matches(root, candidate):
            return found
    raise DatasetSpecError(
        f"{spec.name}: no annotations of split {split!r} in {root}; "
        f"looked for {', '.join(spec.splits[split])}"
    )


def has_annotations(spec: DatasetSpec, root: Path, split: str) -> bool:
    """Whether any candidate of the split exists."""
    return any(_matches(root, candidate) for candidate in spec.splits[split])


def _matches(root: Path, candidate: str) -> list[Path]:
    path = root / candidate
    if "*" in path.name:
        return sorted(path.parent.glob(path.name))
    return [path] if path.is_file() else []


def unsafe_name(name: str) -> bool:
    """Whether a name from an annotation file would lead out of its folder, or is no name."""
    return not name or "/" in name or "\0" in name or name in (".", "..")


def place_rows(spec: DatasetSpec, rows: Sequence[Row], split: str, listing: Listing) -> list[str]:
    """Path of each row's video relative to the data root, whether the file exists or not.

    A video is where the first pattern that matches a file says. One that is nowhere is put
    where most of the split is, so that its path stays the same once the file is there.
    """
    layouts = _layouts(spec, split)
    hits = [0] * len(layouts)
    placed: list[str | None] = []
    for row in rows:
        found = row.path
        if found is None:
            names = _names(row)
            for number, layout in enumerate(layouts):
                candidate = _fill(layout, names)
                if candidate is not None and listing.has_file(candidate):
                    hits[number] += 1
                    found = candidate
                    break
        placed.append(found)
    by_hits = sorted(
        range(len(layouts)), key=lambda number: -hits[number]
    )  # stable: order wins ties
    return [
        path if path is not None else _anywhere([layouts[n] for n in by_hits], row)
        for path, row in zip(placed, rows, strict=True)
    ]


def _layouts(spec: DatasetSpec, split: str) -> list[str]:
    """The patterns with `{split}` and `{ext}` filled in, in order of preference, each once."""
    folders = SPLIT_ALIASES if split in SPLIT_ALIASES else (split,)
    layouts: dict[str, None] = {}
    for pattern in spec.videos:
        for folder in folders:
            for extension in spec.extensions:
                filled = pattern.replace("{split}", folder).replace("{ext}", extension)
                layouts[filled] = None
    return list(layouts)


def _names(row: Row) -> dict[str, str]:
    names = {"video_id": row.video_id}
    if isinstance(row.label, str):
        names["label"] = row.label
        names["label_underscored"] = row.label.replace(" ", "_")
    return names


def _fill(layout: str, names: dict[str, str]) -> str | None:
    """The path, or None if the pattern needs a label that the row does not have."""
    try:
        return layout.format_map(names)
    except KeyError:
        return None


def _anywhere(layouts: list[str], row: Row) -> str:
    names = _names(row)
    for layout in layouts:
        path = _fill(layout, names)
        if path is not None:
            return path
    raise DatasetSpecError(f"{row.where}: every video pattern needs a label, and it has none")
