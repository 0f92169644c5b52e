"""Digests of files, and a digest that lies inside the file that it covers.

A commit record is the last file of a shard, so nothing after it could hold its digest. It is
written with a blank in its place, the digest of that is taken, and then put where the blank was.
"""

from __future__ import annotations

import hashlib

from pipeline.errors import StoreError

_MARK = b"sha256:"
BLANK = (_MARK + b"0" * 64).decode()
"""What a writer puts where the seal belongs; nothing like it may follow in the file."""


def digest(data: bytes) -> str:
    """Hex SHA-256."""
    return hashlib.sha256(data).hexdigest()


def seal(data: bytes) -> bytes:
    """Puts the digest of `data` where its last `BLANK` is."""
    start = data.rindex(_MARK)
    assert data[start : start + len(BLANK)] == BLANK.encode(), "the blank must come last"
    return _with(data, start, digest(data).encode())


def is_sealed(data: bytes) -> bool:
    """Whether not one bit differs from what `seal` gave."""
    start = data.rfind(_MARK)
    if start < 0:
        return False
    found = data[start + len(_MARK) : start + len(BLANK)]
    return digest(_with(data, start, b"0" * 64)).encode() == found


def check_digest(data: bytes, wanted: str, where: str) -> None:
    """Compares a file with the digest that it was committed with.

    Raises:
        StoreError: it is another.
    """
    if digest(data) != wanted:
        raise StoreError(f"{where} is damaged: it is not the file that was written")


def _with(data: bytes, start: int, value: bytes) -> bytes:
    return data[: start + len(_MARK)] + value + data[start + len(BLANK) :]
