"""What the scheduler needs from a place where workers live: this process, or a Ray cluster.

A worker is known by a number. Everything that happens to one arrives as an event from `wait`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

ReportT_co = TypeVar("ReportT_co", covariant=True)


@dataclass(frozen=True)
class Isolation:
    """What an attempt in a process of its own does about clips that crash, named by `clip_id`."""

    suspects: Collection[int] = ()
    """To be tried one at a time."""
    blamed: Collection[int] = ()
    """To be left out, and recorded."""
    note: Callable[[Collection[int]], None] = lambda clips: None
    """To be told which clips are in work from now on."""


@dataclass(frozen=True)
class Attempt:
    """One try at one shard."""

    number: int = 1
    """1 for the first try of this run."""
    final: bool = False
    """Whether to commit a shard of which nothing works; that is an error otherwise."""
    dry_run: bool = False
    """Whether to commit nothing, and only see whether anything works."""
    isolation: Isolation | None = None
    """None unless the attempt has a process of its own, which may be lost."""


class Worker(Protocol[ReportT_co]):
    """Computes and commits shards, one call each; running a shard twice must be harmless."""

    facts: dict[str, Any]
    """What may change the last bits of its results: the device, libraries, batch size."""

    def run(self, shard: int, attempt: Attempt) -> ReportT_co:
        """Compute and commit `shard`; the report must be picklable."""

    def close(self) -> None:
        """Let go of processes and files."""


@dataclass(frozen=True)
class Started:
    """A worker has loaded what it needs and takes shards."""

    worker: int
    facts: dict[str, Any] = field(default_factory=dict)


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
    """A worker's process or node is gone, with every shard it was given."""

    worker: int
    reason: str


Event = Started | StartFailed | Finished | Raised | Died


class Executor(Protocol):
    """Starts, feeds, watches and kills workers."""

    num_workers: int
    """Workers worth starting here."""
    in_flight: int
    """Shards that one worker can be given at a time."""

    def start(self, *, isolated: bool = False) -> int:
        """Begin to start one more worker; `Started` or `StartFailed` follows.

        An isolated worker does its shards, one at a time, in a child of its process.
        """

    def submit(self, worker: int, shard: int, attempt: Attempt) -> None:
        """Give a shard to a started worker."""

    def wait(self, timeout_s: float) -> Sequence[Event]:
        """Events since the last call; waits up to `timeout_s` for the first."""

    def kill(self, worker: int) -> None:
        """End a worker at once; no event follows."""

    def close(self) -> None:
        """End all workers and whatever holds them."""
