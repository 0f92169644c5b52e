"""An executor that dies, hangs and raises on command, in no process, and a run on it."""

from __future__ import annotations

from collections import defaultdict, deque

from pipeline.errors import (
    DiskFullError,
    LostProcessError,
    ModelFailsError,
    NoReadableVideoError,
    ShardError,
    UnfitWorkerError,
)
from pipeline.shards.executor import Attempt, Died, Event, Finished, Raised, Started, StartFailed
from pipeline.shards.scheduler import Loss, Scheduler

ERRORS = {
    "raise": ValueError("bad luck"),
    "lost": LostProcessError("the decoder was killed"),
    "hopeless": ShardError("it crashes"),
    "full": DiskFullError("no space left"),
    "unreadable": NoReadableVideoError("not one video"),
    "broken": ModelFailsError("the model fails"),
    "unfit": UnfitWorkerError("known.mp4 cannot be read"),
}
WORKS_NOT = "works not"  # a commit of which no clip works


class FakeExecutor:
    """Runs one scripted outcome per `wait`; `script[shard]` lists outcomes, then success.

    Outcomes: "die", "hang" (nothing until killed), a key of `ERRORS`, `WORKS_NOT` or None.
    """

    def __init__(self, script=None, num_workers=1, in_flight=1, starts=()):
        self.num_workers, self.in_flight = num_workers, in_flight
        self.script = defaultdict(list, {k: list(v) for k, v in (script or {}).items()})
        self.starts = deque(starts)
        self.events: deque[Event] = deque()
        self.given: dict[int, list[int]] = {}
        self.isolated: dict[int, bool] = {}
        self.log: list[tuple[int, int, Attempt]] = []
        self.killed: list[int] = []
        self.started_at: list[float] = []
        self.now = 0.0
        self._next = 0

    def start(self, *, isolated=False):
        worker, self._next = self._next, self._next + 1
        error = self.starts.popleft() if self.starts else None
        self.given[worker], self.isolated[worker] = [], isolated
        self.started_at.append(self.now)
        assert len(self.given) <= self.num_workers
        if error == "never":
            return worker
        if error == "die":
            self.events.append(Died(worker, "its node is gone"))
        elif error is not None:
            self.events.append(StartFailed(worker, error))
        else:
            self.events.append(Started(worker, {"device": "fake"}))
        if error is not None:
            del self.given[worker]
        return worker

    def submit(self, worker, shard, attempt):
        self.given[worker].append(shard)
        self.log.append((worker, shard, attempt))
        assert len(self.given[worker]) <= (1 if self.isolated[worker] else self.in_flight)

    def wait(self, timeout_s):
        self.now += timeout_s
        if self.events:
            return [self.events.popleft()]
        for worker, shards in self.given.items():
            if not shards:
                continue
            shard = shards[0]
            outcome = self.script[shard][0] if self.script[shard] else None
            if outcome == "hang":
                continue
            if self.script[shard]:
                self.script[shard].pop(0)
            if outcome == "die":
                del self.given[worker]
                return [Died(worker, "killed")]
            shards.pop(0)
            if outcome in ERRORS:
                return [Raised(worker, shard, ERRORS[outcome])]
            return [Finished(worker, shard, {"shard": shard, "works": outcome != WORKS_NOT})]
        return []

    def kill(self, worker):
        self.killed.append(worker)
        for shard in self.given.pop(worker):
            if self.script[shard] and self.script[shard][0] == "hang":
                self.script[shard].pop(0)

    def close(self):
        pass

    def workers_of(self, shard):
        return [worker for worker, given, _ in self.log if given == shard]


def run(executor, shards, **options):
    """Runs to the end; returns (finished shards in order, given-up losses, all losses)."""
    reports: list[dict] = []
    losses: list[Loss] = []
    options = {"max_attempts": 3, "shard_timeout_s": None, **options}
    scheduler = Scheduler(
        executor=executor,
        shards=shards,
        on_report=reports.append,
        on_loss=losses.append,
        works=lambda report: report["works"],
        clock=lambda: executor.now,
        **options,
    )
    given_up = scheduler.run()
    return [report["shard"] for report in reports], given_up, losses
