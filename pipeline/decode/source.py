"""Opening a file that may be anything: only regular files, and never by waiting for one."""

from __future__ import annotations

import errno
import os
import stat
from typing import BinaryIO

from pipeline.errors import ClipStatus, DecodeError

_ABSENT = (errno.ENOENT, errno.ENOTDIR)


def open_regular(path: str) -> BinaryIO:
    """Open a regular, non-empty file for reading.

    Decoders get this object and not the path, so that no name is taken for a protocol
    (`concat:...`), and none waits for the writer of a named pipe.

    Raises:
        DecodeError: `MISSING_FILE`; `UNREADABLE` for a directory, a pipe, a device, a loop of
            links or a denied permission; `DECODE_ERROR` for an empty file.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        descriptor = os.open(path, flags)
    except OSError as error:
        if error.errno in _ABSENT:
            raise DecodeError(ClipStatus.MISSING_FILE, "no such file") from error
        reason = os.strerror(error.errno) if error.errno else type(error).__name__
        raise DecodeError(ClipStatus.UNREADABLE, f"cannot be opened: {reason}") from error
    except ValueError as error:  # a NUL in the name
        raise DecodeError(ClipStatus.UNREADABLE, f"not a file name: {path!r}") from error
    state = os.fstat(descriptor)
    if stat.S_ISREG(state.st_mode) and state.st_size > 0:
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    if not stat.S_ISREG(state.st_mode):
        raise DecodeError(ClipStatus.UNREADABLE, f"not a regular file but {_kind(state.st_mode)}")
    raise DecodeError(ClipStatus.DECODE_ERROR, "the file is empty (0 bytes)")


def _kind(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "a directory"
    if stat.S_ISFIFO(mode):
        return "a named pipe"
    return "a device or a socket"
