"""The place a store lives in, a folder or an object store, behind one small set of calls.

Everything written through `Root.put` is there whole or not at all: a hidden temporary name, fsync
and rename on a folder; a single put on an object store (which has no rename, and publishes half a
file when a streaming writer raises).
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from pipeline.errors import DiskFullError, StoreError, naming, without_passwords
from pipeline.store.seal import digest

TEMP_SUFFIX = ".tmp"  # the name starts with "." so that pandas and DuckDB skip it
_TEMP_NAME = re.compile(r"\..+\.[0-9a-f]{32}" + re.escape(TEMP_SUFFIX))

_PLACES = "a folder, or an object store such as s3://bucket/path (`pip install lite-pipeline[s3]`)"
_READ_AT_ONCE = 32
"""Files that are fetched together; an object store answers each after tens of milliseconds."""


class Root:
    """A folder or any fsspec URL (`s3://bucket/stores/ssv2`); picklable.

    Args:
        url: where; a relative folder is made absolute, as workers may run elsewhere.
        storage_options: passed to fsspec; `s3://` needs none where the environment has them.

    Raises:
        StoreError: a place that cannot hold a store, or a URL with a password in it.
    """

    def __init__(self, url: str | os.PathLike[str], **storage_options: Any) -> None:
        text = os.fspath(url)
        self.storage_options = storage_options
        _refuse_unsuitable(text)
        try:
            self.fs, path = fsspec.core.url_to_fs(text, **storage_options)
        except (ImportError, ValueError, OSError) as error:
            raise StoreError(
                without_passwords(f"cannot open {text!r}: {error}. It must be {_PLACES}")
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

    def put(self, rel: str, data: bytes | Iterable[bytes]) -> str:
        """Writes a whole file, replacing an old one; on a folder it survives a power cut.

        Args:
            rel: where.
            data: all of it, or pieces, of which a folder needs one at a time.

        Returns:
            Hex SHA-256 of what was written.

        Raises:
            StoreError: the place is full, or may only be read.
            OSError: it cannot be written for another reason.
        """
        with self.changing():
            if self.local:
                return write_file(Path(self.join(rel)), data)
            whole = data if isinstance(data, bytes) else b"".join(data)
            self.fs.pipe_file(self.join(rel), whole)
            return digest(whole)

    def get(self, rel: str) -> bytes:
        """A whole file.

        Raises:
            FileNotFoundError: there is none.
        """
        data: bytes = self.fs.cat_file(self.join(rel))
        return data

    def get_each(self, rels: Sequence[str]) -> Iterator[bytes | None]:
        """Whole files in their order, several at once from an object store; None: not there."""
        for start in range(0, len(rels), _READ_AT_ONCE):
            paths = [self.join(rel) for rel in rels[start : start + _READ_AT_ONCE]]
            found = self.fs.cat(paths, on_error="return")
            for path in paths:
                data = found.pop(path)
                if isinstance(data, Exception) and not isinstance(data, FileNotFoundError):
                    raise data
                yield data if isinstance(data, bytes) else None

    def exists(self, rel: str = "") -> bool:
        """Whether there is a file or folder at `rel`, asking the store and not a cache."""
        self.fs.invalidate_cache()
        return bool(self.fs.exists(self.join(rel) if rel else self.path))

    def remove(self, rel: str) -> None:
        """Removes a file if it is there."""
        try:
            with self.changing():
                self.fs.rm_file(self.join(rel))
        except FileNotFoundError:
            return
        if self.local:
            sync(Path(self.join(rel)).parent)

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

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Around what writes there.

        Raises:
            DiskFullError: no space is left, or no quota.
            StoreError: the place may only be read.
        """
        try:
            yield
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise DiskFullError(
                    f"{self} cannot be written: {os.strerror(error.errno)}. What is committed "
                    "stays; make room, then run the same command again"
                ) from error
            if not isinstance(error, PermissionError) and error.errno != errno.EROFS:
                raise
            raise StoreError(
                f"{self} cannot be written ({error.strerror or error}), and this command writes "
                "there: get write access, or name another place"
            ) from error

    def zarr_location(self, rel: str) -> dict[str, Any]:
        """Keyword arguments that open `rel` with Zarr: `store` and `storage_options`."""
        options = None if self.local else self.storage_options
        return {"store": f"{self.url}/{rel}", "storage_options": options}


def write_file(path: Path, data: bytes | Iterable[bytes]) -> str:
    """Writes a whole file or nothing, whatever dies, and makes its folders if needed.

    Args:
        path: where.
        data: all of it, or pieces.

    Returns:
        Hex SHA-256 of what was written.

    Raises:
        OSError: it cannot be written; the file is named.
    """
    found = hashlib.sha256()
    path.parent.mkdir(parents=True, exist_ok=True)
    temp = path.with_name(f".{path.name}.{uuid.uuid4().hex}{TEMP_SUFFIX}")
    try:
        with naming(path), temp.open("wb") as file:
            for piece in [data] if isinstance(data, bytes) else data:
                file.write(piece)
                found.update(piece)
            file.flush()
            os.fsync(file.fileno())
        temp.replace(path)
    except BaseException:
        temp.unlink(missing_ok=True)
        raise
    sync(path.parent)
    return found.hexdigest()


def is_temporary(name: str) -> bool:
    """Whether a file's name is one that `write_file` gives until the file is whole."""
    return _TEMP_NAME.fullmatch(name) is not None


def _refuse_unsuitable(url: str) -> None:
    """Refuses what fsspec would open, but where files are not there whole or not at all."""
    if not url.strip():  # an unset variable of a script; it would be the folder one is in
        raise StoreError(f"{url!r} is no place: it must be {_PLACES}")
    scheme, found, _ = url.partition("://")
    if not found:
        return
    if without_passwords(url) != url:
        raise StoreError(
            f"{without_passwords(url)} has a password in it, which would be written into logs and "
            "files: give credentials by the environment (AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or a profile)"
        )
    try:
        kind = fsspec.get_filesystem_class(scheme)
    except (ImportError, ValueError):
        return  # opening it says why
    if kind is not LocalFileSystem and (not kind.async_impl or scheme in ("http", "https")):
        raise StoreError(f"{url} cannot hold a store: it must be {_PLACES}")


def sync(path: Path) -> None:
    """Forces a file's content, or a folder's entries, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
