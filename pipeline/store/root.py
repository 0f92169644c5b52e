"""The place a store lives in, a folder or an object store, behind one small set of calls.

Everything written through `Root.put` is there whole or not at all: a hidden temporary name, fsync
and rename on a folder; a single put on an object store (which has no rename, and publishes half a
file when a streaming writer raises).
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from pipeline.errors import StoreError

TEMP_SUFFIX = ".tmp"  # ours; the name starts with "." so that pandas and DuckDB skip it
ZARR_TEMP_SUFFIX = ".partial"  # left by Zarr's LocalStore when its process is killed


class Root:
    """A folder or any fsspec URL (`s3://bucket/stores/ssv2`); picklable.

    Args:
        url: where; a relative folder is made absolute, as workers may run elsewhere.
        storage_options: passed to fsspec; `s3://` needs none where the environment has them.
    """

    def __init__(self, url: str | os.PathLike[str], **storage_options: Any) -> None:
        text = os.fspath(url)
        self.storage_options = storage_options
        try:
            self.fs, path = fsspec.core.url_to_fs(text, **storage_options)
        except (ImportError, ValueError) as error:
            raise StoreError(
                f"cannot open a store at {text!r}: {error}. Stores live in a folder or at an "
                "fsspec URL; s3:// needs `pip install lite-pipeline[s3]`"
            ) from error
        self.path = path.rstrip("/")
        self.local = isinstance(self.fs, LocalFileSystem)
        self.url = self.path if self.local else text.rstrip("/")

    def __str__(self) -> str:
        return self.url

    def __repr__(self) -> str:
        return f"Root({self.url!r})"

    def join(self, rel: str) -> str:
        """`rel` as a path of `self.fs`."""
        return f"{self.path}/{rel}"

    def put(self, rel: str, data: bytes) -> None:
        """Writes a whole file, replacing an old one; on a folder it survives a power cut."""
        if not self.local:
            self.fs.pipe_file(self.join(rel), data)
            return
        path = Path(self.join(rel))
        path.parent.mkdir(parents=True, exist_ok=True)
        temp = path.with_name(f".{path.name}.{uuid.uuid4().hex}{TEMP_SUFFIX}")
        try:
            with temp.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temp.replace(path)
        except BaseException:
            temp.unlink(missing_ok=True)
            raise
        _sync(path.parent)

    def get(self, rel: str) -> bytes:
        """A whole file.

        Raises:
            FileNotFoundError: there is none.
        """
        data: bytes = self.fs.cat_file(self.join(rel))
        return data

    def exists(self, rel: str = "") -> bool:
        """Whether there is a file or folder at `rel`, asking the store and not a cache."""
        self.fs.invalidate_cache()
        return bool(self.fs.exists(self.join(rel) if rel else self.path))

    def remove(self, rel: str) -> None:
        """Removes a file if it is there."""
        try:
            self.fs.rm_file(self.join(rel))
        except FileNotFoundError:
            return
        if self.local:
            _sync(Path(self.join(rel)).parent)

    def names(self, rel: str = "") -> list[str]:
        """Names of the files and folders directly in `rel`, sorted, hidden ones included."""
        self.fs.invalidate_cache()  # s3fs would not see what another process has written
        try:
            entries = self.fs.ls(self.join(rel) if rel else self.path, detail=False)
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted({entry.rstrip("/").rsplit("/", 1)[1] for entry in entries} - {""})

    def walk(self) -> list[str]:
        """Paths of all files, relative to the root, sorted, hidden ones included."""
        self.fs.invalidate_cache()
        found = self.fs.find(self.path)
        return sorted(path[len(self.path) + 1 :] for path in found)

    def sync(self, rels: Iterable[str]) -> None:
        """Forces files that others wrote (Zarr does not) to disk, with their folders."""
        if not self.local:
            return
        paths = [Path(self.join(rel)) for rel in rels]
        for path in [*paths, *sorted({path.parent for path in paths})]:
            _sync(path)

    def zarr_location(self, rel: str) -> dict[str, Any]:
        """Keyword arguments that open `rel` with Zarr: `store` and `storage_options`."""
        options = None if self.local else self.storage_options
        return {"store": f"{self.url}/{rel}", "storage_options": options}


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
