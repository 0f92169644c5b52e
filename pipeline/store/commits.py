"""Commit records: the last file of a shard, a Parquet table with the digests of all others."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import StoreError
from pipeline.store.inventory import committed_shards
from pipeline.store.manifest import FolderInfo
from pipeline.store.root import Root
from pipeline.store.seal import BLANK, digest, is_sealed, seal
from pipeline.store.tables import parquet_bytes, read_table

# Keys of the Parquet footer.
_FINGERPRINT = "lite_fingerprint"
_PATH = "lite_path"
_FILES = "lite_files"
_SEAL = "lite_seal"


@dataclass(frozen=True)
class Commit:
    """A commit record that is as it was written."""

    root: Root = field(compare=False)
    path: str
    data: bytes
    files: Mapping[str, str]
    """Path to SHA-256 of the shard's other files."""

    def table(self, columns: Collection[str] | None = None) -> pa.Table:
        """Its rows."""
        return read_table(self.data, f"{self.root}/{self.path}", columns)

    def read(self, rel: str, *, check: bool = True) -> bytes:
        """Another file of the shard, compared with its digest unless `check` is false.

        Raises:
            StoreError: it is missing or damaged.
        """
        where = f"{self.root}/{rel}"
        try:
            data = self.root.get(rel)
        except FileNotFoundError as error:
            raise StoreError(f"{where} is missing, though its shard is committed") from error
        if check and digest(data) != self.files.get(rel):
            raise StoreError(f"{where} is damaged: it is not the file that was committed")
        return data


def commit_bytes(table: pa.Table, info: FolderInfo, shard: int, files: Mapping[str, str]) -> bytes:
    """The file of a commit record.

    Args:
        table: its rows.
        info: the folder's.
        shard: the shard.
        files: path to SHA-256 of the shard's other files.
    """
    footer = {
        _FINGERPRINT: info.config.fingerprint(),
        _PATH: info.commit_path(shard),
        _FILES: json.dumps(files),
        _SEAL: BLANK,  # last: `seal` looks from the end
    }
    return seal(parquet_bytes(table, footer=footer))


def open_commit(root: Root, path: str, data: bytes, info: FolderInfo) -> Commit:
    """Checks what was read at `path`, which should be a commit record.

    Raises:
        StoreError: it is damaged, or of another folder.
    """
    where = f"{root}/{path}"
    if not is_sealed(data):
        raise StoreError(f"{where} is damaged: it is not as it was written")
    try:
        footer = pq.read_metadata(pa.BufferReader(data)).metadata
        stamp = tuple(footer[key.encode()].decode() for key in (_FINGERPRINT, _PATH))
        files = json.loads(footer[_FILES.encode()])
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        raise StoreError(f"{where} is no commit record ({error})") from error
    if stamp != (info.config.fingerprint(), path):
        raise StoreError(
            f"{where} is the file of another shard, or of a {info.KIND.noun} of another "
            f"configuration: it was written as {stamp[1]}"
        )
    return Commit(root, path, data, files)


class Commits:
    """The commit records of a folder, listed and read afresh at every call."""

    def __init__(self, root: Root, info: FolderInfo) -> None:
        self._root, self._info = root, info

    def shards(self) -> list[int]:
        """Committed shards, ascending."""
        return sorted(committed_shards(self._root, self._info))

    def pending(self) -> list[int]:
        """Shards still to do, ascending."""
        return sorted(set(range(self._info.num_shards)) - set(self.shards()))

    def read(self, shard: int) -> Commit | None:
        """The record of one shard; None where it is not committed.

        Raises:
            StoreError: no such shard, or the record is damaged.
        """
        self._info.rows(shard)
        return dict(self.read_each([shard])).get(shard)

    def read_each(self, shards: Iterable[int]) -> Iterator[tuple[int, Commit]]:
        """The records of some shards, in their order.

        One that is not committed, or is no more because it is being done again, is left out.

        Raises:
            StoreError: a record is damaged.
        """
        wanted = list(shards)
        paths = [self._info.commit_path(shard) for shard in wanted]
        for shard, path, data in zip(wanted, paths, self._root.get_each(paths), strict=True):
            if data is not None:
                yield shard, open_commit(self._root, path, data, self._info)
