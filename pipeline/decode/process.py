"""The parent's end of one decoder process."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import cast

import pipeline
from pipeline.decode.pipes import PipeClosedError, PipeTimeoutError, receive, send
from pipeline.decode.request import DecodedVideo, DecodeRequest
from pipeline.errors import DecodeError, DriverError, LiteError

# Importing torch takes 2 s, and much longer where every core is busy or the disk is remote.
_START_LIMIT_S = 300.0
_SINGLE_THREADED = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}


class DecoderProcess:
    """A child process that answers one request at a time, and the two pipes to it."""

    def __init__(self) -> None:
        # The child finds this very package, wherever the parent found it, and nothing that lies
        # about in the current folder (-P).
        root = str(Path(pipeline.__file__).resolve().parents[1])
        paths = [root, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "pipeline.decode.child", str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            env={**os.environ, **_SINGLE_THREADED, "PYTHONPATH": os.pathsep.join(paths)},
            start_new_session=True,  # the terminal's Ctrl-C goes to the parent alone
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._requests = self._process.stdin.fileno()
        self._answers = self._process.stdout.fileno()
        if hasattr(fcntl, "F_SETPIPE_SZ"):
            # A clip in 3 reads and not in 40: each may wait for a busy thread to let go of the GIL.
            with contextlib.suppress(OSError):
                fcntl.fcntl(self._answers, fcntl.F_SETPIPE_SZ, 1 << 20)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def wait_until_ready(self) -> None:
        """Wait until the imports are done; they do not count as decoding time.

        Raises:
            DriverError: it does not get so far.
        """
        try:
            receive(self._answers, _START_LIMIT_S)
        except (PipeClosedError, PipeTimeoutError) as error:
            self.kill()
            raise DriverError(
                f"a decoder process did not start: it ended {self.wait()}; what it wrote to "
                "standard error says why"
            ) from error

    def ask(self, request: DecodeRequest, timeout_s: float) -> DecodedVideo | DecodeError:
        """Send a request and wait for its answer.

        Raises:
            PipeClosedError: the child died.
            PipeTimeoutError: it did not answer in time.
            LiteError: what the child raised, unless it is a `DecodeError`, which is returned.
        """
        send(self._requests, request)
        answer = receive(self._answers, timeout_s)
        if isinstance(answer, LiteError) and not isinstance(answer, DecodeError):
            raise answer
        return cast(DecodedVideo | DecodeError, answer)

    def kill(self) -> None:
        """End it now; harmless where it has ended."""
        self._process.kill()

    def wait(self) -> str:
        """Collect the ended process; how it ended, in words."""
        code = self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        if code < 0:
            return f"by signal {signal.Signals(-code).name}"
        return f"with exit code {code}"
