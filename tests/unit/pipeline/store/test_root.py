"""`Root`: whole files or none, on a folder."""

from __future__ import annotations

import errno
import hashlib
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.local import LocalFileSystem

from pipeline.errors import DiskFullError, StoreError
from pipeline.store.reader import open_store
from pipeline.store.root import TEMP_SUFFIX, Root, write_file
from tests.stores import begin_store, make_store


def test_put_get_remove(tmp_path: Path) -> None:
    root = Root(tmp_path / "new" / "store")
    root.put("a/b.txt", b"one")
    root.put("a/b.txt", b"two")
    assert root.get("a/b.txt") == b"two"
    assert root.names() == ["a"]
    assert root.names("a") == ["b.txt"]
    assert root.walk() == ["a/b.txt"]
    assert root.exists("a/b.txt")
    root.remove("a/b.txt")
    root.remove("a/b.txt")  # nothing left to remove is fine
    assert not root.exists("a/b.txt")
    assert root.names("nowhere") == []


def test_a_failed_put_leaves_the_old_file_and_no_temporary_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Root(tmp_path)
    root.put("file", b"old")

    def full(_: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        root.put("file", b"new")
    assert root.walk() == ["file"]
    assert root.get("file") == b"old"


def test_temporary_names_are_hidden_from_pandas_and_known_to_the_cleaner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    replace = Path.replace

    def spy(self: Path, target: Path) -> Path:
        seen.append(self.name)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", spy)
    Root(tmp_path).put("clips/shard-00000.parquet", b"x")
    assert len(seen) == 1
    assert seen[0].startswith(".shard-00000.parquet.")
    assert seen[0].endswith(TEMP_SUFFIX)


def test_it_travels_to_a_worker_in_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    root = Root("store")
    root.put("file", b"x")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    copy = pickle.loads(pickle.dumps(root))
    assert copy.url == str(tmp_path / "store")
    assert copy.get("file") == b"x"


def test_a_file_url_is_a_folder(tmp_path: Path) -> None:
    root = Root(f"file://{tmp_path}/store/")
    assert root.local
    assert root.url == f"{tmp_path}/store"


def test_an_unknown_scheme_says_so() -> None:
    with pytest.raises(StoreError, match="cannot open 'nosuch://bucket'"):
        Root("nosuch://bucket")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_named_and_leaves_nothing_half_written(tmp_path, monkeypatch, number):
    root = Root(tmp_path)
    root.put("old", b"old")

    def full(descriptor):
        raise OSError(number, "as the system has it")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskFullError, match=r"cannot be written: .*\. What is committed stays"):
        root.put("old", b"new")
    assert root.walk() == ["old"]
    assert root.get("old") == b"old"


def test_a_full_disk_names_the_file_that_has_no_room(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "as the system has it")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="as the system has it") as caught:
        write_file(tmp_path / "shares.csv", b"x")
    assert caught.value.filename == str(tmp_path / "shares.csv")


def test_an_error_of_what_is_read_is_not_blamed_on_what_is_written(tmp_path):
    def pieces():
        yield b"x"
        raise OSError(errno.EIO, "Input/output error", "/source")

    with pytest.raises(OSError, match="/source"):
        write_file(tmp_path / "copy", pieces())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "url",
    [
        "ftp://ftp.example.org/stores/ssv2",
        "http://example.org/store",
        "https://example.org/store",
        "memory://store",
        "zip://store",
    ],
)
def test_places_where_a_file_may_be_half_written_are_refused(url: str) -> None:
    """Without a connection: nobody waits for an FTP server to hear that it is no use."""
    with pytest.raises(StoreError, match=r"cannot hold a store: it must be a folder, or an object"):
        Root(url)


def test_nothing_is_no_place() -> None:
    """Or it would be the folder one is in: what an unset variable of a script names."""
    with pytest.raises(StoreError, match="'' is no place"):
        Root("")


@pytest.mark.parametrize(
    "url",
    [
        "s3://AKIAKEY:wJalrXUtn/FEMI@bucket/stores/ssv2",
        "ftp://user:wJalrXUtn/FEMI@host/stores",
        "nosuch://user:wJalrXUtn/FEMI@host",
        "https://host/store?X-Amz-Signature=wJalrXUtn/FEMI",
    ],
)
def test_a_password_in_a_url_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(StoreError, match="give credentials by the environment") as caught:
        Root(url)
    assert "wJalrXUtn" not in str(caught.value)
    assert "FEMI" not in str(caught.value)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EROFS])
def test_a_place_that_may_only_be_read_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    make_store(tmp_path / "s", 4)

    def refusing(method: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            if any(str(arg).startswith(str(tmp_path)) for arg in args):
                raise OSError(number, os.strerror(number), "a file")
            return method(*args, **kwargs)

        return call

    for owner, name in ((os, "open"), (Path, "open"), (LocalFileSystem, "rm_file")):
        monkeypatch.setattr(owner, name, refusing(getattr(owner, name)))
    root = Root(tmp_path / "s")
    for change in (
        lambda: begin_store(root.url, 4),
        lambda: root.put("file", b"x"),
        lambda: root.remove("store.json"),
    ):
        with pytest.raises(StoreError, match=f"{root} cannot be written .{os.strerror(number)}"):
            change()
    monkeypatch.undo()
    assert open_store(root).summary() == {"ok": 4, "pending": 0}


def test_several_files_at_once(tmp_path: Path) -> None:
    root = Root(tmp_path)
    names = [f"f{number}" for number in range(70)]
    for name in names[::2]:
        root.put(name, name.encode())
    found = list(root.get_each(names))
    assert found == [name.encode() if at % 2 == 0 else None for at, name in enumerate(names)]
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        list(root.get_each(["folder"]))


def test_put_says_the_digest_of_what_it_wrote(tmp_path: Path) -> None:
    root = Root(tmp_path)
    whole = hashlib.sha256(b"abcdef").hexdigest()
    assert root.put("a", b"abcdef") == whole
    assert root.put("b", (piece for piece in (b"abc", b"", b"def"))) == whole
    assert root.get("a") == root.get("b") == b"abcdef"


def test_pieces_that_fail_leave_nothing(tmp_path: Path) -> None:
    def pieces() -> Iterator[bytes]:
        yield b"abc"
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        Root(tmp_path).put("a", pieces())
    assert Root(tmp_path).walk() == []
