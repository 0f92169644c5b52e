"""Begins a folder of shards, completes a half-begun one, or goes on with one."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import replace

from pipeline.errors import StoreError
from pipeline.store import layout
from pipeline.store.inventory import remove_leftovers
from pipeline.store.lock import StoreLock
from pipeline.store.manifest import FolderInfo, InfoT, partition_in_path
from pipeline.store.root import Root
from pipeline.store.seal import digest

_log = logging.getLogger(__name__)

_HARMLESS = re.compile(r"\..*|README.*|LICEN[CS]E.*", re.IGNORECASE)
"""What may lie in a folder before a store or an evaluation is begun there."""


def begin(root: Root, wanted: InfoT, files: Mapping[str, bytes]) -> tuple[InfoT, StoreLock]:
    """Begins a folder, completes a half-begun one, or goes on with one of the same configuration.

    Removes what a killed run left, and writes a file of the beginning again that was damaged.

    Args:
        root: where; absent, empty, or such a folder.
        wanted: what is to be there, still without `files`.
        files: path and contents of what is written before the manifest.

    Returns:
        What is there, and the lock that keeps other runs out until it is released.

    Raises:
        StoreMismatchError: it was begun by another configuration.
        StoreError: another run is writing, or the place holds something else.
    """
    kind = wanted.KIND
    _refuse_foreign(root, wanted, files)
    lock = StoreLock(root)
    try:
        if root.exists(kind.manifest):
            info = type(wanted).read(root)
            info.check_continues(wanted, str(root))
            _restore(root, info, files)
        else:
            info = replace(wanted, files={rel: digest(data) for rel, data in files.items()})
            _create(root, info, files)
        remove_leftovers(root, info)
    except BaseException:
        lock.release()
        raise
    return info, lock


def _refuse_foreign(root: Root, info: FolderInfo, files: Mapping[str, bytes]) -> None:
    kind, names = info.KIND, root.names()
    if kind.manifest in names:
        return
    if any(layout.parse_shard_name(name) is not None for name in root.names(kind.commits)):
        raise StoreError(
            f"{root} holds committed shards but no {kind.manifest}: put that file back from a "
            "copy, or choose another folder"
        )
    ours = {rel.split("/")[0] for rel in files} | kind.folders - {kind.commits} | {layout.RUNS}
    foreign = [name for name in names if name not in ours and not _HARMLESS.fullmatch(name)]
    if foreign:
        raise StoreError(
            f"{root} is no {kind.noun} and not empty (found {', '.join(foreign[:5])}): choose a "
            "new folder"
        )
    partition = partition_in_path(root, info)
    if partition is not None:
        raise StoreError(
            f"{root} lies in a folder called {partition!r}, which DuckDB takes for the value of "
            f"the column {partition.partition('=')[0]!r}: choose a folder without `=`"
        )


def _create(root: Root, info: FolderInfo, files: Mapping[str, bytes]) -> None:
    for path in root.walk():
        if path.split("/")[0] in info.KIND.folders:
            root.remove(path)  # half-begun, perhaps with other settings
    for rel, data in files.items():
        root.put(rel, data)
    root.put(info.KIND.manifest, info.to_json())


def _restore(root: Root, info: FolderInfo, files: Mapping[str, bytes]) -> None:
    """Writes anew what was damaged or lost since the beginning."""
    for rel, wanted in info.files.items():
        try:
            if digest(root.get(rel)) == wanted:
                continue
        except FileNotFoundError:
            pass
        if digest(files.get(rel, b"")) != wanted:
            raise StoreError(
                f"{root}/{rel} is damaged, and these releases of the libraries write it in other "
                f"bytes than those that {info.KIND.manifest} names: put it back from a copy, or "
                "run with those"
            )
        root.put(rel, files[rel])
        _log.warning("%s/%s was damaged or missing, and is written anew", root, rel)
