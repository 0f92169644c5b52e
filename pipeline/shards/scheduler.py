"""Feeds shards to workers until all are committed or given up. Knows nothing of what a shard is.

The rules:

* A shard that raises, or whose worker dies or hangs, goes to the end of the queue.
* After a death every shard the worker had in hand is retried *cautiously*: alone on its worker, so
  that a second death has one suspect. A strike falls only on a shard that was alone.
* `max_attempts` strikes give a shard up; the others go on. A death that taught something new
  (`learned`: a poison clip was narrowed down) is no strike.
* Workers that cannot start, or many different shards failing in a row with none succeeding, end
  the run with the cause: the fault is then not in the data.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from pipeline.errors import DriverError, LiteError
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
MAX_START_FAILURES = 3
MIN_SHARDS_IN_A_ROW = 4


@dataclass(frozen=True)
class Loss:
    """One attempt that did not end in a commit."""

    shard: int
    attempt: int
    reason: str
    given_up: bool


@dataclass
class _Task:
    shard: int
    attempts: int = 0
    strikes: int = 0
    cautious: bool = False


@dataclass
class _Hand:
    """A worker and the shards it has in hand, oldest first."""

    ready: bool = False
    since: float = 0.0  # when its oldest shard became the oldest
    tasks: dict[int, _Task] = field(default_factory=dict)


@dataclass(kw_only=True)
class Scheduler:
    """One run over `shards`; `run()` returns the losses that were given up.

    Attributes:
        executor: where the workers live.
        shards: what to do.
        max_attempts: strikes that give a shard up.
        shard_timeout_s: longest time a worker may go without finishing its oldest shard.
        on_report: called with every report.
        on_loss: called with every failed attempt.
        recover: asked after a death for the report of a shard that was committed all the same.
        learned: asked after the death of a worker that had only this shard in hand, whether it
            narrowed the search for a poison clip.
    """

    executor: Executor
    shards: Iterable[int]
    max_attempts: int
    shard_timeout_s: float | None
    on_report: Callable[[Any], None]
    on_loss: Callable[[Loss], None] = lambda loss: None
    recover: Callable[[int], Any | None] = lambda shard: None
    learned: Callable[[int], bool] = lambda shard: False
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self._queue = deque(_Task(shard) for shard in self.shards)
        self._hands: dict[int, _Hand] = {}
        self._given_up: list[Loss] = []
        self._start_failures = 0
        self._failing: set[int] = set()  # shards that failed since the last success
        self._failures_in_a_row = 0
        self._waiting_since: float | None = None

    def run(self) -> list[Loss]:
        """Run until nothing is left.

        Raises:
            DriverError: workers fail to start, or everything fails.
            LiteError: what a worker raised on purpose while starting.
        """
        while self._queue or any(hand.tasks for hand in self._hands.values()):
            self._start_missing()
            self._feed()
            for event in self.executor.wait(TICK_S):
                self._handle(event)
            self._expire()
            self._warn_of_slow_start()
        return self._given_up

    def _start_missing(self) -> None:
        in_hand = sum(len(hand.tasks) for hand in self._hands.values())
        wanted = min(self.executor.num_workers, len(self._queue) + in_hand)
        while len(self._hands) < wanted:
            self._hands[self.executor.start()] = _Hand()

    def _feed(self) -> None:
        # Every idle worker gets one shard before any gets a second.
        for depth in range(self.executor.in_flight):
            for worker, hand in self._hands.items():
                if not hand.ready or len(hand.tasks) != depth:
                    continue
                if task := self._next_for(hand):
                    self._give(worker, hand, task)

    def _next_for(self, hand: _Hand) -> _Task | None:
        if not self._queue:
            return None
        if not hand.tasks:
            return self._queue.popleft()
        # A second shard only while the queue is long: at the tail it would wait behind its
        # neighbour while another worker idles.
        if len(self._queue) < self.executor.num_workers:
            return None
        if any(task.cautious for task in hand.tasks.values()):
            return None
        for task in self._queue:
            if not task.cautious:
                self._queue.remove(task)
                return task
        return None

    def _give(self, worker: int, hand: _Hand, task: _Task) -> None:
        task.attempts += 1
        if not hand.tasks:
            hand.since = self.clock()
        hand.tasks[task.shard] = task
        self.executor.submit(worker, task.shard, Attempt(task.attempts, task.cautious))

    def _handle(self, event: Event) -> None:
        hand = self._hands.get(event.worker)
        if hand is None:
            return  # an echo of a worker already written off
        match event:
            case Started():
                hand.ready = True
                self._start_failures = 0
            case StartFailed(worker, error):
                del self._hands[worker]
                self._start_failed(error)
            case Finished(_, shard, report):
                self._take(hand, shard)
                self._succeeded(report)
            case Raised(_, shard, error):
                reason = f"{type(error).__name__}: {error}"
                logger.debug("shard %d raised", shard, exc_info=error)
                self._lost(self._take(hand, shard), reason, strike=True)
            case Died(worker, reason):
                self._write_off(worker, reason)

    def _take(self, hand: _Hand, shard: int) -> _Task:
        hand.since = self.clock()
        return hand.tasks.pop(shard)

    def _start_failed(self, error: Exception) -> None:
        if isinstance(error, LiteError):
            raise error  # a wrong option or checkpoint: trying again cannot help
        self._start_failures += 1
        logger.warning("a worker failed to start: %s", error)
        if self._start_failures >= MAX_START_FAILURES:
            raise DriverError(
                f"workers fail to start ({self._start_failures} in a row): {error}"
            ) from error

    def _write_off(self, worker: int, reason: str) -> None:
        hand = self._hands.pop(worker)
        if not hand.ready:
            self._start_failed(RuntimeError(reason))
        tasks = list(hand.tasks.values())
        for task in tasks:
            report = self.recover(task.shard)
            if report is not None:
                self._succeeded(report)
                continue
            task.cautious = True
            alone = len(tasks) == 1
            self._lost(task, reason, strike=alone and not self.learned(task.shard))

    def _succeeded(self, report: Any) -> None:
        self._failing.clear()
        self._failures_in_a_row = 0
        self.on_report(report)

    def _lost(self, task: _Task, reason: str, *, strike: bool) -> None:
        task.strikes += strike
        given_up = task.strikes >= self.max_attempts
        loss = Loss(task.shard, task.attempts, reason, given_up)
        logger.warning(
            "shard %d, attempt %d: %s%s",
            task.shard,
            task.attempts,
            reason,
            "; given up" if given_up else "; will be tried again",
        )
        self.on_loss(loss)
        if given_up:
            self._given_up.append(loss)
        else:
            self._queue.append(task)
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

    def _expire(self) -> None:
        if self.shard_timeout_s is None:
            return
        now = self.clock()
        for worker, hand in list(self._hands.items()):
            if hand.tasks and now - hand.since > self.shard_timeout_s:
                self.executor.kill(worker)
                self._write_off(worker, f"no result within {self.shard_timeout_s:g} s")

    def _warn_of_slow_start(self) -> None:
        if any(hand.ready for hand in self._hands.values()):
            self._waiting_since = None
        elif self._waiting_since is None:
            self._waiting_since = self.clock()
        elif self.clock() - self._waiting_since > SLOW_START_S:
            logger.warning(
                "no worker has started for %d s: the cluster is busy, or the model loads slowly",
                SLOW_START_S,
            )
            self._waiting_since = self.clock()
