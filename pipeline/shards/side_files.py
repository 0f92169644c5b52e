"""What runs keep beside the committed files, in `runs/`: clocks, hosts, devices, deaths.

None of it decides a result, and a store is whole without it.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from pipeline.config import ClipConfig, RunConfig
from pipeline.errors import LiteError
from pipeline.store.info import library_versions
from pipeline.store.layout import RUNS
from pipeline.store.root import Root

logger = logging.getLogger(__name__)

_EVERY_S = 10.0
_IN_WORK = f"{RUNS}/in-work.json"
_NUMERICS = f"{RUNS}/numerics.json"


class RunLog:
    """Who did what, how long it took, what went wrong: `runs/<start>-<process>.jsonl`.

    Object stores cannot append, so the whole file is put anew, every few seconds at most.
    """

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
        try:
            self._root.put(self._path, ("\n".join(self._lines) + "\n").encode())
        except (OSError, LiteError) as error:  # a log is no reason to stop, or to hide why one does
            logger.warning("the side log cannot be written: %s", error)
        self._put_at = time.monotonic()


class ShardsInWork:
    """What was in work when a process was killed that works by itself, for the next run to know.

    Attributes:
        losses: how many runs were killed over a shard that is still to be done.
    """

    def __init__(self, root: Root, shards: Iterable[int]) -> None:
        self._root = root
        try:
            self._written: list[int] = json.loads(root.get(_IN_WORK))
        except FileNotFoundError:
            self._written = []
        self.losses = Counter(self._written) & Counter(dict.fromkeys(shards, len(self._written)))

    def begin(self, shard: int) -> None:
        """This process takes up a shard: if it is killed now, that is one loss more."""
        self._write(self.losses + Counter([shard]))

    def committed(self, shard: int) -> None:
        """A shard is done."""
        del self.losses[shard]

    def end(self) -> None:
        """The run ends by itself: what is in work now was not killed."""
        self._write(self.losses)

    def _write(self, losses: Counter[int]) -> None:
        shards = sorted(losses.elements())
        if shards == self._written:
            return
        if shards:
            self._root.put(_IN_WORK, json.dumps(shards).encode())
        else:
            self._root.remove(_IN_WORK)
        self._written = shards


class Numerics:
    """On what the first run computed; results of another device may differ in their last bits."""

    def __init__(self, root: Root) -> None:
        self._root = root
        self._first: dict[str, Any] | None = None
        self._warned: set[str] = set()

    def compare(self, facts: Mapping[str, Any]) -> None:
        """Keep the facts of the first worker; warn where a later one is different."""
        first = self._first = self._first or self._read()
        if first is None:
            if "device" in facts:
                self._first = dict(facts)
                self._root.put(_NUMERICS, json.dumps(facts).encode())
            return
        changed = ", ".join(
            f"{name} {first.get(name)} -> {value}"
            for name, value in facts.items()
            if first.get(name) != value
        )
        if changed and changed not in self._warned:
            self._warned.add(changed)
            logger.warning(
                "%s was begun on other terms (%s): new results may differ from the others in their "
                "last bits",
                self._root,
                changed,
            )

    def _read(self) -> dict[str, Any] | None:
        try:
            return dict(json.loads(self._root.get(_NUMERICS)))
        except FileNotFoundError:
            return None
