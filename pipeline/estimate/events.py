"""Discrete events: what happens when, and what takes longer where many share it."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable
from functools import partial

Action = Callable[[], None]


class Timeline:
    """Simulated time in seconds, and what is to happen in it; equal times in order of asking."""

    def __init__(self) -> None:
        self.now = 0.0
        self._events: list[tuple[float, int, Action]] = []
        self._order = itertools.count()

    def after(self, seconds: float, action: Action) -> None:
        """Have `action` called in so many seconds."""
        heapq.heappush(self._events, (self.now + seconds, next(self._order), action))

    def step(self, until: float = math.inf) -> bool:
        """Go to the next event and let it happen; False if there is none before `until`."""
        if not self._events or self._events[0][0] > until:
            return False
        self.now, _, action = heapq.heappop(self._events)
        action()
        return True

    def run(self, until: float) -> None:
        """Let everything happen up to a time, which it then is."""
        while self.step(until):
            pass
        self.now = max(self.now, until)


class Shared:
    """A capacity in equal shares: the cores of a node, the bandwidth of a store.

    Work goes at full speed while all demands fit the capacity, and at the same fraction of it for
    everyone otherwise (processor sharing).

    Attributes:
        busy: capacity times seconds that were used.
    """

    def __init__(self, timeline: Timeline, capacity: float = math.inf) -> None:
        self._timeline, self._capacity = timeline, capacity
        self.busy = 0.0
        self._demand = 0.0
        self._work = 0.0  # seconds at full speed that anyone has got so far
        self._since = 0.0
        self._jobs: list[tuple[float, int, float, Action]] = []
        self._order = itertools.count()

    def add(self, seconds: float, action: Action, demand: float = 1.0) -> None:
        """Have `action` called when work is done.

        Args:
            seconds: how long the work takes alone.
            action: called at its end.
            demand: share of the capacity that it takes meanwhile, in the capacity's unit.
        """
        if math.isinf(self._capacity):
            self.busy += seconds * demand
            self._timeline.after(seconds, action)
            return
        self._settle()
        self._demand += demand
        heapq.heappush(self._jobs, (self._work + seconds, next(self._order), demand, action))
        self._expect()

    @property
    def _speed(self) -> float:
        return min(1.0, self._capacity / self._demand) if self._demand else 1.0

    def _settle(self) -> None:
        """Count what was done since the last change."""
        elapsed, self._since = self._timeline.now - self._since, self._timeline.now
        self._work += elapsed * self._speed
        self.busy += elapsed * min(self._demand, self._capacity)

    def _expect(self) -> None:
        if self._jobs:
            first = self._jobs[0]
            left = max(0.0, first[0] - self._work) / self._speed
            self._timeline.after(left, partial(self._end, first))

    def _end(self, job: tuple[float, int, float, Action]) -> None:
        """The time has come for a job, unless others have delayed it since."""
        if not self._jobs or self._jobs[0] is not job:
            return
        self._settle()
        if job[0] > self._work + 1e-9:
            return  # others were added since, and another call is on its way
        heapq.heappop(self._jobs)
        self._demand = self._demand - job[2] if self._jobs else 0.0
        self._expect()
        job[3]()
