"""The side log of a run: who did what, how long it took, what went wrong.

One JSON Lines file per run in `runs/`: it holds the clocks, hosts and attempts that committed files
must not. Object stores cannot append, so the whole file is put anew, every few seconds at most.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from pipeline.config import ClipConfig, RunConfig
from pipeline.store.info import library_versions
from pipeline.store.layout import RUNS
from pipeline.store.root import Root

_EVERY_S = 10.0


class RunLog:
    """Collects events and puts them to `runs/<start>-<process>.jsonl`."""

    def __init__(self, root: Root, config: ClipConfig, run_config: RunConfig) -> None:
        self._root = root
        began = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        self._path = f"{RUNS}/{began}-{os.getpid()}.jsonl"
        self._lines: list[str] = []
        self._put_at = time.monotonic()
        self.add(
            "began",
            {
                "fingerprint": config.fingerprint(),
                "backbone": config.backbone,
                "host": socket.gethostname(),
                "pid": os.getpid(),
                "python": sys.version.split()[0],
                "libraries": library_versions(),
                "run": asdict(run_config),
            },
        )

    def add(self, event: str, facts: Mapping[str, Any]) -> None:
        """Note an event with the time."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self._lines.append(json.dumps({"time": stamp, "event": event, **facts}))
        if time.monotonic() - self._put_at > _EVERY_S:
            self._put()

    def close(self) -> None:
        """Note the end and put the file."""
        self.add("ended", {})
        self._put()

    def _put(self) -> None:
        self._root.put(self._path, ("\n".join(self._lines) + "\n").encode())
        self._put_at = time.monotonic()
