"""What the loop needs from a place where workers live: this process, or a Ray cluster.

A worker is known by a number. Everything that happens to one arrives as an event from `wait`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pipeline.shards.worker import Attempt


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
