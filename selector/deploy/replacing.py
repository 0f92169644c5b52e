"""Replacing some entries of a folder by new ones, all of them or none."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import ConfigError
from pipeline.store.root import sync

_PREFIX = ".saving-"
_NEW, _OLD = "new", "old"


@contextmanager
def replacing(folder: Path, names: Sequence[str]) -> Iterator[Path]:
    """Gives a place for the new entries; when the block ends well, they take the old ones' place.

    Until then the folder is as it was, and so it stays where the block or the exchange fails. A
    process that is killed within the exchange, which only renames, leaves a folder that
    `check_whole` refuses.

    Args:
        folder: made if needed.
        names: entries that are replaced; what was not made anew of them is gone afterwards. Other
            entries of the folder are left alone.

    Raises:
        ConfigError: the folder is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file; give a folder")
    is_made = not folder.exists()
    work = folder / f"{_PREFIX}{uuid.uuid4().hex}"
    new = work / _NEW
    try:
        new.mkdir(parents=True)
        yield new
        for path in (*new.rglob("*"), new):
            sync(path)
        _exchange(folder, work, names)
        for leftover in folder.glob(f"{_PREFIX}*"):  # of saves that were killed, too
            shutil.rmtree(leftover)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        if is_made and folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
        raise


def check_whole(folder: Path) -> None:
    """Refuses a folder whose entries are partly old and partly new.

    Raises:
        ConfigError: says where the old ones are.
    """
    for old in folder.glob(f"{_PREFIX}*/{_OLD}"):
        raise ConfigError(
            f"{folder} is being saved, or a save was cut off while it replaced the files: save "
            f"again, or move what lies in {old} and {old.with_name(_NEW)} back into {folder}"
        )


def is_left_by_a_save(folder: Path) -> bool:
    """Whether a save is at work there, or was cut off."""
    return any(folder.glob(f"{_PREFIX}*"))


def _exchange(folder: Path, work: Path, names: Sequence[str]) -> None:
    old, new = work / _OLD, work / _NEW
    moves = [(folder / n, old / n) for n in names if (folder / n).exists()]
    moves += [(entry, folder / entry.name) for entry in sorted(new.iterdir())]
    done: list[tuple[Path, Path]] = []
    old.mkdir()
    try:
        for source, target in moves:
            source.rename(target)
            done.append((source, target))
        sync(folder)
    except BaseException:
        for source, target in reversed(done):
            target.rename(source)
        old.rmdir()
        raise
    old.rename(work / "replaced")
