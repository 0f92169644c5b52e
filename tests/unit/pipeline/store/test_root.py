"""`Root`: whole files or none, on a folder."""

from __future__ import annotations

import errno
import os
import pickle
from pathlib import Path

import pytest

from pipeline.errors import DiskFullError, StoreError
from pipeline.store.root import TEMP_SUFFIX, Root


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
