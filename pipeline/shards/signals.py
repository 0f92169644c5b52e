"""Lets SIGTERM end a run as orderly as Ctrl-C does."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

SIGTERM_EXIT_CODE = 128 + signal.SIGTERM


@contextlib.contextmanager
def sigterm_exits() -> Iterator[None]:
    """Inside, SIGTERM raises `SystemExit(143)` in the main thread, so that `finally` blocks run."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    received = False

    def leave(signum: int, frame: FrameType | None) -> None:
        nonlocal received
        received = True
        raise SystemExit(SIGTERM_EXIT_CODE)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    except SystemExit:
        if not received:
            raise
        raise SystemExit(SIGTERM_EXIT_CODE) from None  # inside `ray.wait` it becomes SystemExit(1)
    finally:
        signal.signal(signal.SIGTERM, before)
