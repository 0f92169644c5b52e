"""Different files with the same content: a video under two labels, or on both sides of a split."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

NUM_BYTES = 2**16
"""Read at the start and at the end of a file: files of one size that agree there are the same."""


def file_sizes(root: Path, paths: Iterable[str]) -> dict[str, int]:
    """Bytes of the files among some paths that hold any; what cannot be looked at is left out."""
    found = {}
    for path in paths:
        with suppress(OSError):
            found[path] = (root / path).stat().st_size
    return {path: size for path, size in found.items() if size}


def same_content(root: Path, sizes: Mapping[str, int]) -> list[tuple[str, ...]]:
    """Files of the same content, two or more each.

    Only files that share their size with another are opened.

    Args:
        root: the paths are relative to it.
        sizes: path to bytes.

    Returns:
        The paths of each content in ascending order, and the contents in that of their first path.
    """
    by_size = _grouped((size, path) for path, size in sizes.items())
    alike = [paths for paths in by_size if len(paths) > 1]
    by_content = _grouped((_ends(root / path), path) for paths in alike for path in paths)
    return sorted(paths for paths in by_content if len(paths) > 1)


def _grouped(pairs: Iterable[tuple[object, str]]) -> list[tuple[str, ...]]:
    groups: defaultdict[object, list[str]] = defaultdict(list)
    for key, path in pairs:
        groups[key].append(path)
    return [tuple(sorted(paths)) for paths in groups.values()]


def _ends(path: Path) -> object:
    """Start, end and size of a file; of what cannot be read, something that equals nothing."""
    if not path.is_file():  # a named pipe would keep us waiting
        return object()
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            digest = hashlib.sha256()
            for start in (0, max(0, size - NUM_BYTES)):
                file.seek(start)
                digest.update(file.read(NUM_BYTES))
    except OSError:
        return object()
    return size, digest.digest()
