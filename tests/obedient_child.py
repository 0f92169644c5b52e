"""A stand-in for the process that holds a model: started in a moment, it does what it is told.

It is told by the keep ratio and the batches that it gets; see `main`.
"""

from __future__ import annotations

import os
import signal
import sys

from pipeline.decode.child import end_with
from pipeline.decode.pipes import receive, send
from pipeline.errors import ConfigError


def main(parent: int) -> None:
    """Answer a batch by its process id, unless a word in it asks for something else."""
    end_with(parent)
    requests, answers = os.dup(0), os.dup(1)
    order = receive(requests)
    if order == "refuse":
        send(answers, ConfigError("no such model"))
        return
    if order == "die":
        sys.exit(3)
    send(answers, {"pid": os.getpid()})
    while True:
        batch = receive(requests)
        if "crash" in batch:
            os.abort()
        if "hang" in batch:
            signal.pause()
        send(answers, [os.getpid() for _ in batch])
        if "stop" in batch:  # answers, and does not read what comes then
            os.kill(os.getpid(), signal.SIGSTOP)


if __name__ == "__main__":
    main(int(sys.argv[1]))
