"""Runs every shard in this process, except one that lost its process before: it gets a child."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from pipeline.config import RunConfig
from pipeline.shards.executor import Attempt, Event, Finished, Raised, Started, Worker
from pipeline.shards.isolated import IsolatedWorker


class SerialExecutor:
    """One worker, one shard at a time, in this process and its main thread.

    No Ray, a debugger works, Ctrl-C is direct. A shard cannot be timed out here and cannot outlive
    its process; both need a Ray worker.
    """

    num_workers = 1
    in_flight = 1

    def __init__(
        self, make_worker: Callable[[], Worker[Any]], run_config: RunConfig, in_flight: int
    ) -> None:
        self._make_worker, self._run_config = make_worker, run_config
        self._worker: Worker[Any] | None = None
        self._events: deque[Event] = deque()
        self._submitted: deque[tuple[int, Attempt]] = deque()

    def start(self, *, isolated: bool = False) -> int:
        """Build the worker; its errors pass through unchanged."""
        if isolated:
            self._worker = IsolatedWorker(self._make_worker, self._run_config)
        else:
            self._worker = self._make_worker()
        self._events.append(Started(0, self._worker.facts))
        return 0

    def submit(self, worker: int, shard: int, attempt: Attempt) -> None:
        """Take note of the shard; it runs inside the next `wait`."""
        self._submitted.append((shard, attempt))

    def wait(self, timeout_s: float) -> list[Event]:
        """Run one submitted shard to its end, however long it takes."""
        if self._submitted and self._worker is not None:
            shard, attempt = self._submitted.popleft()
            try:
                self._events.append(Finished(0, shard, self._worker.run(shard, attempt)))
            except Exception as error:
                self._events.append(Raised(0, shard, error))
        events = list(self._events)
        self._events.clear()
        return events

    def kill(self, worker: int) -> None:
        """Close the worker; called between shards only."""
        self.close()

    def close(self) -> None:
        """Close the worker, if one was built."""
        if self._worker is not None:
            self._worker.close()
            self._worker = None
