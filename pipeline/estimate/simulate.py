"""A run, simulated: the real scheduler gives shards to workers that only spend time.

So what a tail, a second shard in flight or a worker's death costs is what the run's own rules make
of it.
"""

from __future__ import annotations

import logging
import math
import random
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

from pipeline.config import require_at_least
from pipeline.errors import ConfigError, DriverError
from pipeline.estimate.events import Shared, Timeline
from pipeline.estimate.worker import Rates, SimulatedWorker, WorkerSetup
from pipeline.shards.executor import Attempt, Died, Event, Finished, Started
from pipeline.shards.run import SHARDS_IN_FLIGHT
from pipeline.shards.scheduler import Scheduler


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Where a run takes place.

    Attributes:
        workers: in all; 0 is one, in the driver's process, with one shard at a time.
        nodes: over which they are spread.
        cores_per_node: infinite where every process has its own.
        store_bytes_s: what the store takes from all together.
        worker_lifetime_s: mean time after which a worker is lost; infinite: none is.
    """

    workers: int = 0
    nodes: int = 1
    cores_per_node: float = math.inf
    store_bytes_s: float = math.inf
    worker_lifetime_s: float = math.inf

    def __post_init__(self) -> None:
        require_at_least("workers", self.workers, 0)
        require_at_least("nodes", self.nodes, 1)
        for name in ("cores_per_node", "store_bytes_s", "worker_lifetime_s"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} must be above 0, got {getattr(self, name)!r}")


class Commit(NamedTuple):
    """A shard that the driver knows to be committed."""

    at_s: float
    num_clips: int


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """How a simulated run went."""

    seconds: float
    """From the start of the workers to the last commit."""
    num_clips: int
    commits: list[Commit] = field(repr=False)
    busy: dict[str, float]
    """Share of the whole time that each part was busy: `start` until the first worker is ready;
    `decode` all decoders; `model` all models; `commit` the shards that workers may have in work;
    `store` its bandwidth; `driver`."""
    num_lost: int
    """Attempts at shards that were lost with a worker."""

    @property
    def clips_per_s(self) -> float:
        """Over the whole run, its start and its tail included."""
        return self.num_clips / self.seconds

    @property
    def steady_clips_per_s(self) -> float:
        """From the first commit to the last; 0 where there is only one."""
        first, *rest = self.commits
        seconds = self.commits[-1].at_s - first.at_s
        return sum(commit.num_clips for commit in rest) / seconds if seconds > 0 else 0.0

    @property
    def bound_by(self) -> str:
        """The part that was busy for the largest share of the time."""
        return max(self.busy, key=lambda part: self.busy[part])


def simulate(
    num_clips: int,
    shard_size: int,
    setup: WorkerSetup,
    cluster: Cluster,
    rates: Rates,
    *,
    seed: int = 0,
) -> Forecast:
    """Run all shards of a plan in simulated time.

    Args:
        num_clips: of the plan.
        shard_size: clips per shard, a video's clips together.
        setup: every worker's.
        cluster: how many of them, and where.
        rates: how long things take.
        seed: of the deaths.

    Raises:
        ConfigError: numbers that no run has.
        DriverError: workers are lost faster than they finish shards, as in a real run.
    """
    require_at_least("clips", num_clips, 1)
    require_at_least("shard_size", shard_size, 1)
    if not rates.decode_s or min(rates.decode_s) < 0:
        raise ConfigError("a decoder's seconds per video must be given, and not negative")
    executor = _SimulatedExecutor(num_clips, shard_size, setup, cluster, rates, seed)
    commits: list[Commit] = []
    lost: list[object] = []
    scheduler = Scheduler(
        executor=executor,
        shards=range(-(-num_clips // shard_size)),
        max_attempts=3,
        shard_timeout_s=None,
        on_report=lambda clips: commits.append(Commit(executor.timeline.now, clips)),
        on_loss=lost.append,
        clock=lambda: executor.timeline.now,
    )
    with _silent():
        given_up = scheduler.run()
    if given_up:
        raise DriverError(
            f"{len(given_up)} of {-(-num_clips // shard_size)} shards are given up, as workers are "
            "lost before they finish one: smaller shards, or workers that live longer"
        )
    return Forecast(
        seconds=commits[-1].at_s,
        num_clips=num_clips,
        commits=commits,
        busy=executor.busy(commits[-1].at_s),
        num_lost=len(lost),
    )


@contextmanager
def _silent() -> Iterator[None]:
    """The scheduler warns of what it loses, and nothing is lost here."""
    logger = logging.getLogger(Scheduler.__module__)
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


class _SimulatedExecutor:
    """Workers in simulated time; see `pipeline.shards.executor.Executor`."""

    def __init__(
        self,
        num_clips: int,
        shard_size: int,
        setup: WorkerSetup,
        cluster: Cluster,
        rates: Rates,
        seed: int,
    ) -> None:
        self.num_workers = max(1, cluster.workers)
        self.in_flight = SHARDS_IN_FLIGHT if cluster.workers else 1
        self.timeline = Timeline()
        self._num_clips, self._shard_size = num_clips, shard_size
        self._setup, self._rates, self._lifetime_s = setup, rates, cluster.worker_lifetime_s
        self._cores = [Shared(self.timeline, cluster.cores_per_node) for _ in range(cluster.nodes)]
        self._store_bytes_s = cluster.store_bytes_s
        self._store = Shared(self.timeline, cluster.store_bytes_s)
        self._all: list[SimulatedWorker] = []
        self._nodes: dict[int, int] = {}  # of the workers that are there
        self._events: deque[Event] = deque()
        self._driver_busy = 0.0
        self._ready_s: float | None = None
        self._random = random.Random(seed)
        self._turns: dict[int, list[float]] = {}

    def start(self, *, isolated: bool = False) -> int:
        """On the node that has the fewest."""
        number, taken = len(self._all), list(self._nodes.values())
        node = min(range(len(self._cores)), key=taken.count)
        self._nodes[number] = node
        self._all.append(
            SimulatedWorker(
                self._rates,
                self._setup,
                timeline=self.timeline,
                cores=self._cores[node],
                store=self._store,
                finished=partial(self._finished, number),
            )
        )
        self.timeline.after(self._rates.start_s, partial(self._tell, Started(number)))
        if not math.isinf(self._lifetime_s):
            life = self._random.expovariate(1 / self._lifetime_s)
            self.timeline.after(self._rates.start_s + life, partial(self._die, number))
        return number

    def submit(self, worker: int, shard: int, attempt: Attempt) -> None:
        """Give it the shard."""
        clips = self._clips(shard)
        videos = -(-clips // self._setup.num_views)
        first = shard * -(-self._shard_size // self._setup.num_views)
        # The same shard takes the same time whoever does it, whenever.
        seconds = [self._decode_s(video) for video in range(first, first + videos)]
        self._all[worker].submit(shard, clips, seconds)

    def wait(self, timeout_s: float) -> Sequence[Event]:
        """The next event, for which the driver takes its time while everything goes on."""
        until = self.timeline.now + timeout_s
        while not self._events and self.timeline.step(until):
            pass
        if not self._events:
            self.timeline.run(until)
            return []
        event = self._events.popleft()
        if self._ready_s is None:
            self._ready_s = self.timeline.now
        self._driver_busy += self._rates.driver_s
        self.timeline.run(self.timeline.now + self._rates.driver_s)
        return [event]

    def kill(self, worker: int) -> None:
        """End it."""
        self._all[worker].alive = False
        self._nodes.pop(worker, None)
        self._events = deque(event for event in self._events if event.worker != worker)

    def close(self) -> None:
        """Nothing is held."""

    def busy(self, seconds: float) -> dict[str, float]:
        """Share of a time in which each part worked."""
        models = self.num_workers * seconds
        decoders = max(1, self._setup.decoders) * models
        ready = seconds if self._ready_s is None else self._ready_s
        store = 0.0 if math.isinf(self._store_bytes_s) else self._store.busy / self._store_bytes_s
        return {
            "start": min(1.0, ready / seconds),
            "decode": sum(worker.decode_busy for worker in self._all) / decoders,
            "model": sum(worker.model_busy for worker in self._all) / models,
            "commit": sum(worker.commit_busy for worker in self._all) / (self.in_flight * models),
            "store": store / seconds,
            "driver": self._driver_busy / seconds,
        }

    def _decode_s(self, video: int) -> float:
        """Seconds of a video: the sample again and again, in another order each time."""
        sample = self._rates.decode_s
        if len(sample) == 1:
            return sample[0]
        turn, place = divmod(video, len(sample))
        if turn not in self._turns:
            self._turns[turn] = random.Random(turn).sample(sample, len(sample))
        return self._turns[turn][place]

    def _clips(self, shard: int) -> int:
        return min(self._shard_size, self._num_clips - shard * self._shard_size)

    def _tell(self, event: Event) -> None:
        if self._all[event.worker].alive:
            self._events.append(event)

    def _finished(self, worker: int, shard: int) -> None:
        self._tell(Finished(worker, shard, self._clips(shard)))

    def _die(self, worker: int) -> None:
        if worker in self._nodes:
            self.kill(worker)
            self._events.append(Died(worker, "lost"))
