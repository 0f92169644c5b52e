"""The decoder process: one request at a time from standard input, its answer to standard output.

A request for windows is its last.

Started by `DecodePool` as `python -m pipeline.decode.child PARENT_PID`. It ends with its parent,
however that ends: by the end of its input; by the kernel's signal, where there is one; and by a
thread that looks for its parent every other second, should a library hang.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import signal
import sys
import threading
import time

_PR_SET_PDEATHSIG = 1
_LOOK_EVERY_S = 2.0


def main(parent: int) -> None:
    """Answer requests until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    end_with(parent)
    requests, answers = own_pipes()

    import torch

    from pipeline.decode.backends import decode_here
    from pipeline.decode.pipes import PipeClosedError, receive, send
    from pipeline.decode.sliding import serve_windows
    from pipeline.decode.windows import WindowRequest
    from pipeline.errors import LiteError

    torch.set_num_threads(1)
    importlib.import_module("pipeline.decode.pyav")  # before the clock of a request runs
    try:
        send(answers, "ready")
        while True:
            request = receive(requests)
            if isinstance(request, WindowRequest):
                serve_windows(request, requests, answers)
                return  # turns that it took none of may follow
            try:
                answer: object = decode_here(request)
            except LiteError as error:
                answer = error
            send(answers, answer)
    except PipeClosedError:
        pass


def own_pipes() -> tuple[int, int]:
    """File descriptors of a child's requests and answers: its standard input and output.

    Standard output becomes standard error, as what a library prints must not get between the
    answers.
    """
    requests, answers = os.dup(0), os.dup(1)
    os.dup2(2, 1)
    return requests, answers


def end_with(parent: int) -> None:
    """Let this process end when its parent does; `parent` is its process id."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it was gone before the line above
        os._exit(1)
    threading.Thread(target=_watch, args=(parent,), name="watch-parent", daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_LOOK_EVERY_S)
    os._exit(1)


if __name__ == "__main__":
    main(int(sys.argv[1]))
