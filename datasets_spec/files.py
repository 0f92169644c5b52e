"""Finds files below the data root with one listing per folder instead of one `stat` per file."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from datasets_spec.errors import DatasetSpecError
from datasets_spec.names import fold, normal
from datasets_spec.types import DatasetSpec


class Listing:
    """The files below a folder; every directory is read once, when first asked for.

    `has_file`, `files` and `folders` take names by the letter. What begins with `find` also finds
    a name in Unicode's other normal form, as in a Mac's archive that was unpacked on Linux.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._read: dict[str, tuple[frozenset[str], frozenset[str]]] = {}
        self._by_key: dict[tuple[str, bool, Callable[[str], str]], dict[str, list[str]]] = {}

    def has_file(self, path: str) -> bool:
        """Whether the folder of `path` lists it as anything but a folder; opens nothing."""
        folder, _, name = path.rpartition("/")
        return name in self.files(folder)

    def files(self, folder: str) -> frozenset[str]:
        """Names in `folder` (relative, forward slashes) that are no folders; empty if none."""
        return self._names(folder)[0]

    def folders(self, folder: str) -> frozenset[str]:
        """Names in `folder` that are folders, or links, which may lead to one."""
        return self._names(folder)[1]

    def find(self, path: str) -> str | None:
        """The file whose path means the same, or None."""
        if self.has_file(path) or path.isascii():
            return path if self.has_file(path) else None
        *folders, name = path.split("/")
        at: str | None = ""
        for folder in folders:
            at = None if at is None else self.find_folder(at, folder)
        return None if at is None else self.find_file(at, name)

    def find_file(self, folder: str, name: str) -> str | None:
        """The path of a file whose name means the same, or None."""
        return self._find(folder, name, is_folder=False)

    def find_folder(self, folder: str, name: str) -> str | None:
        """The path of a folder whose name means the same, or None."""
        return self._find(folder, name, is_folder=True)

    def find_folder_like(self, folder: str, name: str) -> str | None:
        """The path of the only folder that is called so but for case and separators, or None."""
        found = self._keyed(folder, True, fold).get(fold(name), [])
        return join(folder, found[0]) if len(found) == 1 else None

    def _find(self, folder: str, name: str, *, is_folder: bool) -> str | None:
        if name in self._names(folder)[is_folder]:
            return join(folder, name)
        if name.isascii():  # has one normal form
            return None
        found = self._keyed(folder, is_folder, normal).get(normal(name), [])
        return join(folder, found[0]) if found else None

    def _keyed(
        self, folder: str, is_folder: bool, key: Callable[[str], str]
    ) -> dict[str, list[str]]:
        at = (folder, is_folder, key)
        if at not in self._by_key:
            names: dict[str, list[str]] = {}
            for name in sorted(self._names(folder)[is_folder]):
                names.setdefault(key(name), []).append(name)
            self._by_key[at] = names
        return self._by_key[at]

    def _names(self, folder: str) -> tuple[frozenset[str], frozenset[str]]:
        if folder not in self._read:
            files, folders = set(), set()
            try:
                with os.scandir(self.root / folder) as entries:
                    for entry in entries:
                        is_folder = entry.is_dir(follow_symlinks=False)
                        # A link counts as both: looking through it would cost a `stat` each.
                        if is_folder or entry.is_symlink():
                            folders.add(entry.name)
                        if not is_folder:
                            files.add(entry.name)
            except (FileNotFoundError, NotADirectoryError):
                pass
            except OSError as error:
                raise DatasetSpecError(
                    f"cannot list {self.root / folder}: {error.strerror}"
                ) from error
            self._read[folder] = frozenset(files), frozenset(folders)
        return self._read[folder]


def join(folder: str, name: str) -> str:
    """The path of a name in a folder that may be the root, ""."""
    return f"{folder}/{name}" if folder else name


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
