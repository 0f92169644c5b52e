"""What the scheduler needs from a place where workers live: this process, or a Ray cluster.

A worker is known by a number. Everything that happens to one arrives as an event from `wait`.
"""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from pipeline.config import RunConfig

ReportT_co = TypeVar("ReportT_co", covariant=True)


@dataclass(frozen=True)
class Attempt:
    """One try at one shard."""

    number: int = 1
    """1 for the first try of this run."""
    cautious: bool = False
    """True once a worker died with this shard in hand: it then runs alone on its worker, which
    should leave a trace of what it is about to touch."""


class Worker(Protocol[ReportT_co]):
    """Computes and commits shards, one call each; running a shard twice must be harmless."""

    def run(self, shard: int, attempt: Attempt) -> ReportT_co:
        """Compute and commit `shard`; the report must be picklable."""

    def close(self) -> None:
        """Let go of processes and files."""


@dataclass(frozen=True)
class Started:
    """A worker has loaded what it needs and takes shards."""

    worker: int


@dataclass(frozen=True)
class StartFailed:
    """A worker could not start; it is gone."""

    worker: int
    error: Exception


@dataclass(frozen=True)
class Finished:
    """A shard is committed."""

    worker: int
    shard: int
    report: Any


@dataclass(frozen=True)
class Raised:
    """A shard raised; its worker is fine."""

    worker: int
    shard: int
    error: Exception


@dataclass(frozen=True)
class Died:
    """A worker's process or node is gone, with every shard it had in hand."""

    worker: int
    reason: str


Event = Started | StartFailed | Finished | Raised | Died


class Executor(Protocol):
    """Starts, feeds, watches and kills workers."""

    num_workers: int
    """Workers worth starting here."""
    in_flight: int
    """Shards one worker can have in hand."""

    def start(self) -> int:
        """Begin to start one more worker; `Started` or `StartFailed` follows."""

    def submit(self, worker: int, shard: int, attempt: Attempt) -> None:
        """Hand a shard to a started worker."""

    def wait(self, timeout_s: float) -> Sequence[Event]:
        """Events since the last call; waits up to `timeout_s` for the first."""

    def kill(self, worker: int) -> None:
        """End a worker at once; no event follows."""

    def close(self) -> None:
        """End all workers and whatever holds them."""


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
        self._make_worker = make_worker
        self._worker: Worker[Any] | None = None
        self._events: deque[Event] = deque()
        self._submitted: deque[tuple[int, Attempt]] = deque()

    def start(self) -> int:
        """Build the worker; its errors pass through unchanged."""
        self._worker = self._make_worker()
        self._events.append(Started(0))
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


def executor_class(run_config: RunConfig) -> Callable[..., Executor]:
    """This process where no Ray workers are asked for, else Ray, which is imported only then."""
    if run_config.workers == 0:
        return SerialExecutor
    settle_ray_env(run_config.ray_address)
    from pipeline.shards.ray_executor import RayExecutor

    return RayExecutor


def settle_ray_env(address: str | None) -> None:
    """Keep Ray quiet; what the user's environment already says stays.

    Args:
        address: of the cluster to join, or None for a local Ray. A cluster's authentication mode is
            its own affair; a local Ray has a token either way, and warns unless that is said aloud.
    """
    if "ray" in sys.modules:
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Older releases warn that they will stop hiding the GPUs from workers that asked for none.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if address is None:
        os.environ.setdefault("RAY_AUTH_MODE", "token")
