"""What the driver and a worker say to each other about one shard.

The driver is generic: it hands shard numbers to any object with a `run` method and passes the
reports on unread. Only this small vocabulary is shared.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from pipeline.errors import ClipStatus

ReportT_co = TypeVar("ReportT_co", covariant=True)


@dataclass(frozen=True)
class Attempt:
    """One try at one shard."""

    number: int = 1
    """1 for the first try of this run."""
    cautious: bool = False
    """True once a worker died with this shard in hand: it then runs alone on its worker, which
    should leave a trace of what it is about to touch."""


@dataclass(frozen=True, kw_only=True)
class ShardReport:
    """What a committed shard tells the driver."""

    shard: int
    counts: dict[str, int]
    """Clips per status."""
    seconds: dict[str, float]
    """Seconds spent in `decode` (waiting for it), `compute` and `write`."""
    host: str = field(default_factory=socket.gethostname)
    """Who did it, and in which process: the caller."""
    pid: int = field(default_factory=os.getpid)

    @property
    def num_clips(self) -> int:
        """Clips of the shard."""
        return sum(self.counts.values())

    @property
    def num_failed(self) -> int:
        """Clips of the shard that are not ok."""
        return self.num_clips - self.counts.get(ClipStatus.OK, 0)


class Worker(Protocol[ReportT_co]):
    """Computes and commits shards, one call each; running a shard twice must be harmless."""

    def run(self, shard: int, attempt: Attempt) -> ReportT_co:
        """Compute and commit `shard`; the report must be picklable."""

    def close(self) -> None:
        """Let go of processes and files."""
