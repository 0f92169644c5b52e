"""The folder of a server's uploads: its own, and gone with it.

A server that is killed cannot remove it; the next one of the same user does. Whether a server lives
is asked of a lock on a file in its folder, which the kernel releases when the server dies.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

logger = logging.getLogger(__name__)

_PREFIX = "lite-serve-"
_LOCK = "lock"


@contextlib.contextmanager
def upload_folder() -> Iterator[Path]:
    """A new folder below the system's temporary one, without those of servers that were killed."""
    _remove_leftovers(Path(tempfile.gettempdir()))
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    try:
        # It gets its name when it is locked: a folder without one may be just being made.
        with (folder / f"{_LOCK}.new").open("wb") as lock:
            with contextlib.suppress(OSError):  # no locks there: nobody will remove it for us
                fcntl.flock(lock, fcntl.LOCK_EX)
                Path(lock.name).rename(folder / _LOCK)
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_leftovers(place: Path) -> None:
    for folder in place.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):  # it is in use, or being made, or just being removed
            status = folder.lstat()
            if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
                continue
            with (folder / _LOCK).open("rb+") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder)
            logger.info("removed %s, which a server that was killed had left", folder)
