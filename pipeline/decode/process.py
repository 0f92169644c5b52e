"""The parent's end of a child process that ends with it: two pipes, and how it died."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import pipeline
from pipeline.decode.pipes import PipeClosedError, PipeTimeoutError, receive, send
from pipeline.decode.request import DecodedVideo, DecodeRequest
from pipeline.errors import DecodeError, DriverError, LiteError

# Importing torch takes 2 s, and much longer where every core is busy or the disk is remote.
_START_LIMIT_S = 300.0
_END_LIMIT_S = 30.0
_SINGLE_THREADED = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}
# What a program brings upon itself. Any other signal was sent: by a user, a scheduler, or a system
# that ran out of memory.
_CRASHES = {
    getattr(signal, name)
    for name in ("SIGABRT", "SIGBUS", "SIGFPE", "SIGILL", "SIGSEGV", "SIGSYS", "SIGTRAP")
}


class ChildProcess:
    """A Python module run as a child, and the pipes to it.

    Args:
        module: what `python -m` runs; it is given this process's id, and should call
            `pipeline.decode.child.end_with` on it.
        environment: added to this process's own.
    """

    def __init__(self, module: str, environment: Mapping[str, str] | None = None) -> None:
        # The child finds this very package, wherever the parent found it, what the parent finds
        # beside it, and nothing else that lies about in the current folder (-P).
        root = str(Path(pipeline.__file__).resolve().parents[1])
        asked = os.environ.get("PYTHONPATH", "").split(os.pathsep)
        paths = dict.fromkeys(filter(None, [root, *asked, *sys.path]))
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", module, str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            env={**os.environ, **(environment or {}), "PYTHONPATH": os.pathsep.join(paths)},
            start_new_session=True,  # the terminal's Ctrl-C goes to the parent alone
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self.requests = self._process.stdin.fileno()
        self.answers = self._process.stdout.fileno()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def kill(self) -> None:
        """End it now; harmless where it has ended."""
        self._process.kill()

    def wait(self) -> int:
        """Collect a process that ends: its exit code, or minus the signal that ended it."""
        try:
            code = self._process.wait(_END_LIMIT_S)
        except subprocess.TimeoutExpired:  # it has closed its pipe, and lives
            self._process.kill()
            code = self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        return code


def was_killed_from_outside(exit_code: int) -> bool:
    """Whether somebody ended the process: it says nothing about what the process was doing."""
    return exit_code < 0 and -exit_code not in _CRASHES


def ending(exit_code: int) -> str:
    """How a process ended, in words."""
    if exit_code < 0:
        return f"by signal {signal.Signals(-exit_code).name}"
    return f"with exit code {exit_code}"


class DecoderProcess(ChildProcess):
    """A child that decodes one request at a time."""

    def __init__(self) -> None:
        super().__init__("pipeline.decode.child", _SINGLE_THREADED)
        if hasattr(fcntl, "F_SETPIPE_SZ"):
            # A clip in 3 reads and not in 40: each may wait for a busy thread to let go of the GIL.
            with contextlib.suppress(OSError):
                fcntl.fcntl(self.answers, fcntl.F_SETPIPE_SZ, 1 << 20)

    def wait_until_ready(self) -> None:
        """Wait until the imports are done; they do not count as decoding time.

        Raises:
            DriverError: it does not get so far.
            PipeClosedError: it was killed from outside before it did.
        """
        try:
            receive(self.answers, _START_LIMIT_S)
        except (PipeClosedError, PipeTimeoutError) as error:
            if isinstance(error, PipeClosedError) and was_killed_from_outside(self.wait()):
                raise
            self.kill()
            raise DriverError(
                f"a decoder process did not start: it ended {ending(self.wait())}; what it wrote "
                "to standard error says why"
            ) from error

    def ask(self, request: DecodeRequest, timeout_s: float) -> DecodedVideo | DecodeError:
        """Send a request and wait for its answer.

        Raises:
            PipeClosedError: the child died.
            PipeTimeoutError: it did not answer in time.
            LiteError: what the child raised, unless it is a `DecodeError`, which is returned.
        """
        send(self.requests, request)
        answer = receive(self.answers, timeout_s)
        if isinstance(answer, LiteError) and not isinstance(answer, DecodeError):
            raise answer
        return cast(DecodedVideo | DecodeError, answer)
