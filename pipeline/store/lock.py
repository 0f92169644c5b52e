"""Locks of a store on a file system; the kernel releases them when their holder dies.

Object stores have no locks. There nobody may start a run while another, or a worker that outlived
its driver, is still writing.
"""

from __future__ import annotations

import fcntl
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import StoreError
from pipeline.store import layout
from pipeline.store.root import Root

# Record locks belong to the process: the kernel drops them all when one thread closes the file.
_one_thread = threading.Lock()


class StoreLock:
    """An exclusive `flock` on `runs/lock`, held until `release` or the death of the process.

    Raises:
        StoreError: another run holds it.
    """

    def __init__(self, root: Root) -> None:
        self._descriptor: int | None = None
        if not root.local:
            return
        descriptor = _open(root, layout.LOCK)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 200).decode(errors="replace").strip()
            os.close(descriptor)
            raise StoreError(
                f"another run is writing {root} ({holder or 'unknown process'}): wait for it, or "
                "stop it and start again"
            ) from None
        except OSError as error:
            os.close(descriptor)
            raise _no_locks(root, error) from error
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        self._descriptor = descriptor

    def release(self) -> None:
        """Lets the next run in; the file stays, as removing it would let two runs in."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


@contextmanager
def writing(root: Root, shard: int | None = None) -> Iterator[None]:
    """Waits until nobody else writes this shard (or any shard, with None), and holds it.

    A worker can outlive its driver for some seconds. Without this lock the next run would write
    the same shard at the same time, or take its half-written files for leftovers.
    """
    if not root.local:
        yield
        return
    with _one_thread:
        descriptor = _open(root, layout.WRITERS_LOCK)
        try:
            try:
                # One byte of the file per shard; a length of 0 is the whole file.
                start, length = (0, 0) if shard is None else (shard, 1)
                fcntl.lockf(descriptor, fcntl.LOCK_EX, length, start)
            except OSError as error:
                raise _no_locks(root, error) from error
            yield
        finally:
            os.close(descriptor)


def _open(root: Root, rel: str) -> int:
    path = Path(root.join(rel))
    with root.changing():
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o644)


def _no_locks(root: Root, error: OSError) -> StoreError:
    return StoreError(
        f"cannot lock {root} ({error}): its file system has no locks; build on another"
    )
