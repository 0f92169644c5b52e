"""Gives shards to workers until all are committed or given up. Knows nothing of what a shard is.

The rules:

* A shard that raises goes to the end of the queue, and is given up after `max_attempts`.
* A shard whose worker dies or hangs is not to blame: it goes to the end of the queue. If it loses a
  second worker it is *isolated*: done after all others, alone on a worker that does it in a child
  process and watches how that ends (`pipeline.shards.isolated`).
* A shard of which nothing works says something about its worker or about the whole run, and commits
  nothing: another worker takes it. If that one finds the same, the shard waits until it is known
  whether anything works at all, and its failures are recorded only if it does.
* A worker that fails to start is no reason to stop while others work.
* What no further try can mend ends the run with its cause: no worker starts, a full disk, several
  whole shards of videos that are not there, different shards that fail in a row and none succeeds.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.errors import (
    DiskFullError,
    DriverError,
    LiteError,
    LostProcessError,
    ModelFailsError,
    NothingWorksError,
    ShardError,
    UnfitWorkerError,
)
from pipeline.shards.executor import (
    Attempt,
    Died,
    Event,
    Executor,
    Finished,
    Raised,
    Started,
    StartFailed,
)

logger = logging.getLogger(__name__)

TICK_S = 0.5
SLOW_START_S = 120.0
MAX_FAILED_STARTS = 3
"""Times that all workers fail to start before the run ends."""
START_AGAIN_S = 5.0
"""After a failed start while others work; doubled with every further one."""
START_AGAIN_AT_MOST_S = 300.0
MIN_SHARDS_IN_A_ROW = 4
LOSSES_TO_ISOLATE = 2
MAX_LOSSES = 12
MAX_SHARDS_IN_DOUBT = 3
"""Whole shards without one readable video that end the run. So many in a row on which the model
fails end it if it has worked on none; else it has to show that it still does."""


@dataclass(frozen=True)
class Loss:
    """One attempt that did not end in a commit."""

    shard: int
    attempt: int
    reason: str
    given_up: bool


@dataclass
class _Task:
    """A shard that is to be done."""

    shard: int
    isolated: bool = False
    attempts: int = 0
    failures: int = 0  # attempts that raised
    losses: int = 0  # workers that died or hung
    doubts: int = 0  # workers that found nothing in it that works
    doubt: NothingWorksError | None = None  # what the last of them said
    final: bool = False  # to be committed whatever comes of it
    dry_run: bool = False  # committed before: done again to see whether anything works


@dataclass
class _Slot:
    """A worker and the tasks it was given, oldest first."""

    isolated: bool
    ready: bool = False
    proven: bool = False  # it has committed something that works
    since: float = 0.0  # when its oldest task became the oldest
    tasks: dict[int, _Task] = field(default_factory=dict)


@dataclass(kw_only=True)
class Scheduler:
    """One run over `shards`; `run()` returns the losses that were given up.

    Attributes:
        executor: where the workers live.
        shards: what to do.
        losses: how many processes a shard has lost in earlier runs, where it has.
        max_attempts: times a shard may raise before it is given up.
        shard_timeout_s: longest time a worker may go without finishing its oldest shard.
        on_report: called with every report.
        on_loss: called with every failed attempt.
        on_start: called with what a worker that has started says of itself.
        on_submit: called with every shard that is given to a worker.
        recover: asked after a death for the report of a shard that was committed all the same.
        works: whether the shard of a report has a clip that works.
        proof: a committed shard that has one, to be done again when nothing works; None if none.
    """

    executor: Executor
    shards: Iterable[int]
    losses: Mapping[int, int] = field(default_factory=dict)
    max_attempts: int
    shard_timeout_s: float | None
    on_report: Callable[[Any], None]
    on_loss: Callable[[Loss], None] = lambda loss: None
    on_start: Callable[[dict[str, Any]], None] = lambda facts: None
    on_submit: Callable[[int], None] = lambda shard: None
    recover: Callable[[int], Any | None] = lambda shard: None
    works: Callable[[Any], bool] = lambda report: True
    proof: Callable[[], int | None] = lambda: None
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self._queue: deque[_Task] = deque()
        self._isolated: deque[_Task] = deque()
        self._doubtful: list[_Task] = []
        for shard in sorted(self.shards, key=lambda shard: shard in self.losses):
            isolated = self.losses.get(shard, 0) >= LOSSES_TO_ISOLATE
            self._put(_Task(shard, isolated=isolated, losses=min(self.losses.get(shard, 0), 1)))
        self._slots: dict[int, _Slot] = {}
        self._given_up: list[Loss] = []
        self._worked = False  # whether anything has, in this run
        self._doubts_in_a_row = 0  # shards since anything worked
        self._failed_starts = 0  # since one succeeded
        self._failed_rounds = 0
        self._start_after = float("-inf")
        self._failing: set[int] = set()  # shards that failed since the last success
        self._failures_in_a_row = 0
        self._waiting_since: float | None = None

    def run(self) -> list[Loss]:
        """Run until nothing is left.

        Raises:
            DriverError: workers fail to start, or everything fails.
            LiteError: what no further try can mend.
        """
        while self._queue or self._isolated or self._doubtful or self._num_given():
            self._begin_next_phase()
            self._start_missing()
            self._feed()
            for event in self.executor.wait(TICK_S):
                self._handle(event)
            self._expire()
            self._warn_of_slow_start()
        return self._given_up

    # Which shards are next

    def _put(self, task: _Task, *, first: bool = False) -> None:
        queue = self._isolated if task.isolated else self._queue
        if first:
            queue.appendleft(task)
        else:
            queue.append(task)

    def _num_given(self) -> int:
        return sum(len(slot.tasks) for slot in self._slots.values())

    def _begin_next_phase(self) -> None:
        """Once the queue is done: first what is in doubt, if that can be settled; then the rest."""
        if self._num_given():
            return
        if not self._queue and self._doubtful and (not self._isolated or self._can_settle()):
            if not self._worked:
                self._demand_proof(self._doubtful[0])
                return
            for task in self._doubtful:
                task.final = True
                self._put(task)
            self._doubtful.clear()
        if self._queue and all(task.final for task in self._queue) and not self._any_proven():
            self._demand_proof(self._queue[0])

    def _demand_proof(self, task: _Task) -> None:
        """See whether a shard still works that did before; if there is none, end the run."""
        shard = self.proof()
        if shard is None:
            assert task.doubt is not None
            raise task.doubt
        self._put(_Task(shard, dry_run=True), first=True)

    def _can_settle(self) -> bool:
        return self._any_proven() or self.proof() is not None

    def _any_proven(self) -> bool:
        return any(slot.proven and not slot.isolated for slot in self._slots.values())

    def _start_missing(self) -> None:
        isolated = not self._queue and not any(
            slot.tasks for slot in self._slots.values() if not slot.isolated
        )
        waiting = len(self._isolated if isolated else self._queue)
        if not waiting or self.clock() < self._start_after:
            return
        for worker, slot in list(self._slots.items()):
            if slot.isolated != isolated and not slot.tasks:
                self._kill(worker)  # of the other kind, and done
        if self._failed_starts and any(not slot.ready for slot in self._slots.values()):
            return  # see first what becomes of the others
        wanted = min(self.executor.num_workers, waiting + self._num_given())
        while len(self._slots) < wanted:
            self._slots[self.executor.start(isolated=isolated)] = _Slot(isolated)

    def _feed(self) -> None:
        # Every idle worker gets one shard before any gets a second.
        for depth in range(self.executor.in_flight):
            for worker, slot in self._slots.items():
                if not slot.ready or len(slot.tasks) != depth:
                    continue
                if task := self._next_for(slot):
                    self._give(worker, slot, task)

    def _next_for(self, slot: _Slot) -> _Task | None:
        queue = self._isolated if slot.isolated else self._queue
        # A second shard only while the queue is long: at the tail it would wait behind its
        # neighbour while another worker idles. An isolated one is alone.
        if slot.tasks and (slot.isolated or len(queue) < self.executor.num_workers):
            return None
        for task in queue:
            if slot.proven or slot.isolated or not task.final:
                queue.remove(task)
                return task
        return None

    def _give(self, worker: int, slot: _Slot, task: _Task) -> None:
        task.attempts += 1
        if not slot.tasks:
            slot.since = self.clock()
        slot.tasks[task.shard] = task
        self.on_submit(task.shard)
        attempt = Attempt(task.attempts, final=task.final, dry_run=task.dry_run)
        self.executor.submit(worker, task.shard, attempt)

    # What becomes of them

    def _handle(self, event: Event) -> None:
        slot = self._slots.get(event.worker)
        if slot is None:
            return  # an echo of a worker already written off
        match event:
            case Started(_, facts):
                slot.ready = True
                self._failed_starts = self._failed_rounds = 0
                self.on_start(facts)
            case StartFailed(worker, error):
                del self._slots[worker]
                self._start_failed(error)
            case Finished(_, shard, report):
                task = self._take(slot, shard)
                if self.works(report):
                    self._worked = slot.proven = True
                    self._doubts_in_a_row = 0
                self._succeeded(task, report)
            case Raised(worker, shard, error):
                self._raised(worker, self._take(slot, shard), error)
            case Died(worker, reason):
                self._write_off(worker, reason)

    def _take(self, slot: _Slot, shard: int) -> _Task:
        slot.since = self.clock()
        return slot.tasks.pop(shard)

    def _succeeded(self, task: _Task, report: Any) -> None:
        self._failing.clear()
        self._failures_in_a_row = 0
        if not task.dry_run:
            self.on_report(report)

    def _raised(self, worker: int, task: _Task, error: Exception) -> None:
        logger.debug("shard %d raised", task.shard, exc_info=error)
        if isinstance(error, LostProcessError):
            self._lose(task, str(error))
            return
        if isinstance(error, DiskFullError) or (task.dry_run and isinstance(error, LiteError)):
            raise error
        if isinstance(error, UnfitWorkerError | NothingWorksError):
            self._retire(worker, task, error)
            return
        task.failures += 1
        given_up = isinstance(error, ShardError) or task.failures >= self.max_attempts
        reason = str(error) if isinstance(error, ShardError) else f"{type(error).__name__}: {error}"
        self._lost(task, reason, given_up=given_up)

    def _retire(self, worker: int, task: _Task, error: LiteError) -> None:
        """End a worker that may be unable to work; another one gets its shards."""
        logger.warning("a worker is given up: %s", error)
        for other in self._kill(worker):
            self._put(other, first=True)
        if isinstance(error, NothingWorksError):
            task.doubts, task.doubt = task.doubts + 1, error
        else:
            task.losses += 1
        if task.losses >= MAX_LOSSES:
            raise error
        if task.doubts < 2:
            self._put(task, first=True)
            return
        self._doubtful.append(task)
        self._doubts_in_a_row += 1
        if isinstance(error, ModelFailsError) and self._worked:
            if self._doubts_in_a_row >= MAX_SHARDS_IN_DOUBT and (shard := self.proof()) is not None:
                self._put(_Task(shard, dry_run=True), first=True)
            return
        num_same = sum(type(other.doubt) is type(error) for other in self._doubtful)
        if num_same >= MAX_SHARDS_IN_DOUBT:
            raise type(error)(f"{error}. The same holds for {num_same} whole shards")

    def _write_off(self, worker: int, reason: str) -> None:
        """A worker is dead: its shards have lost it, unless they were committed before."""
        slot = self._slots.pop(worker)
        if not slot.ready:
            self._start_failed(RuntimeError(reason))
        for task in slot.tasks.values():
            report = self.recover(task.shard)
            if report is not None:
                self._succeeded(task, report)
                continue
            self._lose(task, reason)

    def _lose(self, task: _Task, reason: str) -> None:
        """A process of the shard was lost, which says nothing about the shard."""
        task.losses += 1
        task.isolated = not task.dry_run and task.losses >= LOSSES_TO_ISOLATE
        self._lost(task, reason, given_up=task.losses >= MAX_LOSSES)

    def _kill(self, worker: int) -> list[_Task]:
        """End a worker; the tasks it still had."""
        self.executor.kill(worker)
        return list(self._slots.pop(worker).tasks.values())

    def _lost(self, task: _Task, reason: str, *, given_up: bool) -> None:
        loss = Loss(task.shard, task.attempts, reason, given_up)
        logger.warning(
            "shard %d, attempt %d: %s%s",
            task.shard,
            task.attempts,
            reason,
            "; given up" if given_up else "; will be tried again",
        )
        self.on_loss(loss)
        if given_up and task.dry_run:
            raise DriverError(f"shard {task.shard}, which was committed, fails now: {reason}")
        if given_up:
            self._given_up.append(loss)
        else:
            self._put(task)
        self._failing.add(task.shard)
        self._failures_in_a_row += 1
        # Enough failures that losing every worker at once (a node) does not look like this.
        enough = self._failures_in_a_row > 2 * self.executor.num_workers * self.executor.in_flight
        if enough and len(self._failing) >= MIN_SHARDS_IN_A_ROW:
            raise DriverError(
                f"{len(self._failing)} different shards failed in a row and none succeeded; "
                f"the last one, shard {task.shard}, with: {reason}. Mend the cause, then run the "
                "same command again: it resumes"
            )

    # Workers that do not start, or hang

    def _start_failed(self, error: Exception) -> None:
        self._failed_starts += 1
        logger.warning("a worker failed to start: %s", error)
        if any(slot.ready for slot in self._slots.values()):
            if self.clock() >= self._start_after:  # else one of several that fail together
                pause = START_AGAIN_S * 2**self._failed_rounds
                self._start_after = self.clock() + min(pause, START_AGAIN_AT_MOST_S)
                self._failed_rounds += 1
            return
        if self._slots:
            return  # the others are still loading
        self._failed_rounds += 1
        if isinstance(error, LiteError):
            raise error  # a wrong option or checkpoint: trying again cannot help
        if self._failed_rounds >= MAX_FAILED_STARTS:
            raise DriverError(
                f"workers fail to start ({self._failed_starts} in a row): {error}"
            ) from error

    def _expire(self) -> None:
        if self.shard_timeout_s is None:
            return
        now = self.clock()
        for worker, slot in list(self._slots.items()):
            if slot.isolated:
                continue  # it watches its child, which may have to go clip by clip
            if slot.tasks and now - slot.since > self.shard_timeout_s:
                self.executor.kill(worker)
                self._write_off(worker, f"no result within {self.shard_timeout_s:g} s")

    def _warn_of_slow_start(self) -> None:
        if any(slot.ready for slot in self._slots.values()):
            self._waiting_since = None
        elif self._waiting_since is None:
            self._waiting_since = self.clock()
        elif self.clock() - self._waiting_since > SLOW_START_S:
            logger.warning(
                "no worker has started for %d s: the cluster is busy, or the model loads slowly",
                SLOW_START_S,
            )
            self._waiting_since = self.clock()
