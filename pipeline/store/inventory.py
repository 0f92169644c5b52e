"""Which files belong to a folder of shards, which a killed run left, and which are strangers.

One answer for all who ask: what a run removes is what `verify` says that the next run removes.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from pipeline.store import layout
from pipeline.store.lock import writing
from pipeline.store.manifest import FolderInfo
from pipeline.store.root import Root, is_temporary

_log = logging.getLogger(__name__)

# What programs that copy or synchronise folders add to a name: "shard-00001 (1).parquet" (browsers,
# Drive), "(Ann's conflicted copy 2026-01-31)" (Dropbox, Nextcloud), ".sync-conflict-20260131-..."
# (Syncthing), "_conflict-..." (ownCloud), " copy 2", " 2" (macOS, iCloud), " - Copy" (Windows).
_ADDED = re.compile(
    r" \([^()/]*\)|\.sync-conflict-[\w-]+|_conflict-[\w-]+| - Copy| copy(?: \d+)?| \d+(?=[./]|$)"
    r"|\.(?:orig|bak|old)$|~$"
)


@dataclass(frozen=True)
class Inventory:
    """The files of a folder that are no part of its data; paths are relative to the folder."""

    leftovers: list[str] = field(default_factory=list)
    """Of a killed run; the next run removes them."""
    copies: dict[str, str] = field(default_factory=dict)
    """To the file each is a copy of."""
    foreign: list[str] = field(default_factory=list)
    """In the folders of data, where readers of a whole folder take them for data."""
    outsiders: list[str] = field(default_factory=list)
    """Beside the data, or hidden: no reader sees them."""


def take_inventory(info: FolderInfo, paths: Iterable[str], committed: Collection[int]) -> Inventory:
    """Sorts the files of a folder.

    Args:
        info: its manifest.
        paths: all its files.
        committed: its committed shards.
    """
    kind = info.KIND
    data = {kind.manifest, *info.files}
    unfinished: set[str] = set()
    for shard in range(info.num_shards):
        data.add(info.commit_path(shard))
        (data if shard in committed else unfinished).update(info.shard_files(shard))
    found = Inventory()
    for path in sorted(paths):
        first, _, rest = path.partition("/")
        ours = not rest or first in kind.folders or first == layout.RUNS
        if path in unfinished or (ours and is_temporary(path.rpartition("/")[2])):
            found.leftovers.append(path)
        elif path in data or first == layout.RUNS:
            continue
        elif (original := _ADDED.sub("", path)) in data | unfinished:
            found.copies[path] = original
        elif first in kind.folders and not any(part.startswith(".") for part in path.split("/")):
            found.foreign.append(path)
        else:
            found.outsiders.append(path)
    return found


def remove_leftovers(root: Root, info: FolderInfo) -> list[str]:
    """Removes what a killed run left, waiting for shards that are being written.

    Returns:
        The paths removed, relative to the folder.
    """
    with writing(root):
        committed = committed_shards(root, info)
        doomed = take_inventory(info, root.walk(), committed).leftovers
        for path in doomed:
            root.remove(path)
    if doomed:
        _log.info("%s: removed %d leftovers of a killed run", root, len(doomed))
    return doomed


def committed_shards(root: Root, info: FolderInfo) -> set[int]:
    """Shards with a commit record, listed afresh; one beyond the plan is a foreign file."""
    shards = (layout.parse_shard_name(name) for name in root.names(info.KIND.commits))
    return {shard for shard in shards if shard is not None and shard < info.num_shards}
