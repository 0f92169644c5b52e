"""One run at a time on one store: a lock that the kernel releases when its holder dies."""

from __future__ import annotations

import fcntl
import os
import socket
from pathlib import Path

from pipeline.errors import StoreError
from pipeline.store import layout
from pipeline.store.root import Root


class StoreLock:
    """An exclusive `flock` on `runs/lock`, held until `release` or the death of the process.

    Object stores have no locks: there two runs at once are not guarded against. They would do the
    same work twice and, being deterministic, write the same bytes.

    Raises:
        StoreError: another run holds it.
    """

    def __init__(self, root: Root) -> None:
        self._descriptor: int | None = None
        if not root.local:
            return
        path = Path(root.join(layout.LOCK))
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
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
            raise StoreError(
                f"cannot lock {path}: {error}. The file system has no locks; build on another"
            ) from error
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        self._descriptor = descriptor

    def release(self) -> None:
        """Lets the next run in; the file stays, as removing it would let two runs in."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
