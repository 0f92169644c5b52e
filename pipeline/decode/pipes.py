"""Objects over a pipe: pickled, length-prefixed, arrays out of band so that they are not copied."""

from __future__ import annotations

import os
import pickle
import select
import struct
import time
from typing import Any

_LENGTH = struct.Struct("<Q")


class PipeClosedError(Exception):
    """The other end is gone."""


class PipeTimeoutError(Exception):
    """The other end did not answer in time."""


def send(descriptor: int, value: Any) -> None:
    """Write one object.

    Raises:
        PipeClosedError: nobody reads any more.
    """
    buffers: list[pickle.PickleBuffer] = []
    body = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    parts = [memoryview(body), *(buffer.raw() for buffer in buffers)]
    lengths = b"".join(_LENGTH.pack(part.nbytes) for part in parts)
    try:
        for part in (memoryview(_LENGTH.pack(len(parts)) + lengths), *parts):
            left = part
            while left:
                left = left[os.write(descriptor, left) :]
    except BrokenPipeError as error:
        raise PipeClosedError from error


def receive(descriptor: int, timeout_s: float | None = None) -> Any:
    """Read one object, sleeping until it comes.

    Args:
        descriptor: the pipe.
        timeout_s: seconds for the whole object; None waits for ever.

    Raises:
        PipeClosedError: the other end closed it, or died, before or within the object.
        PipeTimeoutError: not complete in time.
    """
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    (num_parts,) = _LENGTH.unpack(_read(descriptor, _LENGTH.size, deadline))
    lengths = _read(descriptor, _LENGTH.size * num_parts, deadline)
    body, *buffers = (
        _read(descriptor, length, deadline) for (length,) in _LENGTH.iter_unpack(lengths)
    )
    return pickle.loads(body, buffers=buffers)


def _read(descriptor: int, num_bytes: int, deadline: float | None) -> bytearray:
    data = bytearray(num_bytes)
    view = memoryview(data)
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    while view:
        if deadline is not None:
            left_ms = (deadline - time.monotonic()) * 1000
            if left_ms <= 0 or not poller.poll(left_ms):
                raise PipeTimeoutError
        count = os.readv(descriptor, [view])
        if count == 0:
            raise PipeClosedError
        view = view[count:]
    return data
