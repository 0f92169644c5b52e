"""Every file below a folder, with a word about each that is passed over.

Links to folders are followed: parts of a dataset often lie on another disk. Nothing is left out in
silence, and a folder that cannot be listed is an error.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from datasets_spec.errors import DatasetSpecError
from datasets_spec.names import as_utf8
from datasets_spec.types import Skipped

HIDDEN = "hidden"
SYSTEM = "made by a file system or an archive, no data"
AGAIN = "a second way to a folder"
BROKEN = "a link to nothing"
_SYSTEM_FOLDERS = frozenset(
    {
        "__MACOSX",
        "@eaDir",
        "#recycle",
        "$RECYCLE.BIN",
        "System Volume Information",
        "lost+found",
    }
)


Report = Callable[[Skipped], None]


class Entries(NamedTuple):
    """What a folder holds, sorted by name."""

    folders: list[Path]
    """Links to folders too."""
    files: list[Path]
    """All that is no folder."""


def list_folder(folder: Path, root: Path, report: Report) -> Entries:
    """Lists a folder; hidden entries and a system's own folders are reported and left out.

    Raises:
        DatasetSpecError: it cannot be listed.
    """
    entries = Entries([], [])
    try:
        with os.scandir(folder) as found:
            listed = sorted((entry.name, _is_folder(entry)) for entry in found)
    except OSError as error:
        raise DatasetSpecError(f"cannot list {folder}: {error.strerror}") from error
    for name, is_folder in listed:
        if name.startswith(".") or (is_folder and name in _SYSTEM_FOLDERS):
            reason = HIDDEN if name.startswith(".") else SYSTEM
            report(Skipped(relative(folder / name, root), reason))
        else:
            (entries.folders if is_folder else entries.files).append(folder / name)
    return entries


class Walk:
    """Goes through folders once each, whatever links lead to them.

    Args:
        root: what reported paths are relative to; a link to a folder that holds it is a circle.
        report: receives what is passed over.
        again: called with a folder and the way by which it was entered before; by default the
            second way is reported.
    """

    def __init__(
        self, root: Path, report: Report, again: Callable[[Path, Path], None] | None = None
    ) -> None:
        self._root = root
        self._report = report
        self._again = again or self.report_again
        self._entered = {_identity(path): path for path in root.resolve().parents}

    def enter(self, folder: Path) -> Path | None:
        """Note a folder; returns the way by which it was entered before, or None."""
        first = self._entered.setdefault(_identity(folder), folder)
        return None if first is folder else first

    def files(self, folder: Path) -> Iterator[Path]:
        """Yields the files in a folder and the folders inside it, in order of names.

        Raises:
            DatasetSpecError: a folder cannot be listed.
        """
        waiting = [folder]
        while waiting:
            at = waiting.pop()
            first = self.enter(at)
            if first is not None:
                self._again(at, first)
                continue
            entries = list_folder(at, self._root, self._report)
            yield from entries.files
            waiting += reversed(entries.folders)

    def report_again(self, folder: Path, first: Path) -> None:
        """Report a second way to a folder."""
        inside = first.is_relative_to(self._root)
        reason = f"{AGAIN}: {relative(first, self._root) if inside else first}"
        self._report(Skipped(relative(folder, self._root), reason))


def file_without_row(path: Path, root: Path) -> Skipped:
    """What to report of a file that is no video."""
    if path.is_symlink() and not path.exists():
        return Skipped(relative(path, root), BROKEN)
    ending = as_utf8(path.suffix.lower())
    return Skipped(relative(path, root), f"ending {ending}" if ending else "no ending")


def relative(path: Path, root: Path) -> str:
    """The path below the root, with forward slashes, as UTF-8 can hold it."""
    return as_utf8(path.relative_to(root).as_posix())


def worth_saying(skipped: Iterable[Skipped]) -> bool:
    """Whether anything was passed over that somebody may take for data."""
    return any(found.reason not in (HIDDEN, SYSTEM) for found in skipped)


def count_skipped(skipped: Iterable[Skipped]) -> str:
    """How many files or folders gave no row, by reason: `3 ending .mts, 1 hidden`."""
    counts = Counter(found.reason.partition(":")[0] for found in skipped)
    return ", ".join(f"{count} {reason}" for reason, count in counts.most_common())


def _identity(folder: Path) -> tuple[int, int]:
    try:
        status = folder.stat()
    except OSError as error:
        raise DatasetSpecError(f"cannot list {folder}: {error.strerror}") from error
    return status.st_dev, status.st_ino


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False
