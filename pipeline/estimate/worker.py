"""A worker as it spends its time: decoders, batches, the model's turn, the commit.

The counterpart of `pipeline.shards.worker` and `loader`, with durations in place of work.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from pipeline.estimate.events import Shared, Timeline


@dataclass(frozen=True, kw_only=True)
class Rates:
    """Seconds of each step of a worker, on a machine that does nothing else.

    Attributes:
        decode_s: per video, of one decoder process; a sample, of which each video takes one.
        model_s: per clip, within a full batch.
        assemble_s: per clip, from a decoder's answer into its batch.
        write_s: per clip, to encode and commit.
        commit_s: per shard, what waits for a store's answers and takes no CPU.
        start_s: until a worker is ready.
        driver_s: of the driver, per answer of a worker.
    """

    decode_s: tuple[float, ...]
    model_s: float
    assemble_s: float = 0.0
    write_s: float = 0.0
    commit_s: float = 0.0
    start_s: float = 0.0
    driver_s: float = 0.0

    @property
    def mean_decode_s(self) -> float:
        """Per video."""
        return sum(self.decode_s) / len(self.decode_s)


@dataclass(frozen=True, kw_only=True)
class WorkerSetup:
    """What every worker is: the settings of `RunConfig` and `ClipConfig` that its speed is from.

    Attributes:
        decoders: processes; 0 decodes in the worker itself.
        batch_size: clips of a forward pass.
        num_views: clips per video.
        on_gpu: whether the model leaves the node's cores to others.
        threads: cores that a model without a GPU takes.
        clip_bytes: of the store, per clip.
        stream_bytes_s: what one worker alone can write.
    """

    decoders: int
    batch_size: int
    num_views: int = 1
    on_gpu: bool = False
    threads: int = 1
    clip_bytes: float = 0.0
    stream_bytes_s: float = 1e9

    @property
    def look_ahead(self) -> int:
        """Videos decoded ahead, as `ClipLoader` has it."""
        return max(-(-2 * self.batch_size // self.num_views), 2 * self.decoders)


@dataclass
class _Shard:
    """A shard in work; videos are numbered within it."""

    number: int
    num_clips: int
    decode_s: Sequence[float]  # of each of its videos
    asked: int = 0
    decoded: set[int] = field(default_factory=set)
    taken: int = 0
    computed: int = 0  # clips
    waiting: bool = False  # it has the model, and no batch yet


class SimulatedWorker:
    """One worker on a node.

    Args:
        rates: how long things take.
        setup: what it is.
        timeline: of the run.
        cores: of its node.
        store: where it commits to, in bytes per second.
        finished: called with every shard that is committed.

    Attributes:
        alive: set to False to kill it; what it has in work is then never finished.
        decode_busy: seconds that its decoders have worked, summed.
        model_busy: seconds that its model has.
        commit_busy: seconds from a shard's last batch to its commit, summed over its shards.
    """

    def __init__(
        self,
        rates: Rates,
        setup: WorkerSetup,
        *,
        timeline: Timeline,
        cores: Shared,
        store: Shared,
        finished: Callable[[int], None],
    ) -> None:
        self._rates, self._setup = rates, setup
        self._timeline, self._cores, self._store = timeline, cores, store
        self._finished = finished
        self._idle = setup.decoders
        self._requests: deque[tuple[_Shard, int]] = deque()
        self._in_turn: _Shard | None = None
        self._next: deque[_Shard] = deque()
        self.alive = True
        self.decode_busy = self.model_busy = self.commit_busy = 0.0

    def submit(self, number: int, num_clips: int, decode_s: Sequence[float]) -> None:
        """Begin a shard: its decoding at once, the rest when the model is free.

        Args:
            number: of the shard.
            num_clips: its clips.
            decode_s: seconds of each of its videos.
        """
        shard = _Shard(number, num_clips, decode_s)
        if self._setup.decoders:
            for _ in range(min(self._setup.look_ahead, len(decode_s))):
                self._ask(shard)
        self._next.append(shard)
        self._take_turn()

    def _then(self, action: Callable[[], None]) -> Callable[[], None]:
        """The same, unless the worker has died by then."""

        def act() -> None:
            if self.alive:
                action()

        return act

    # Decoders

    def _ask(self, shard: _Shard) -> None:
        self._requests.append((shard, shard.asked))
        shard.asked += 1
        self._decode()

    def _decode(self) -> None:
        while self._idle and self._requests:
            self._idle -= 1
            shard, video = self._requests.popleft()
            done = partial(self._decoded, shard, video, self._timeline.now)
            self._cores.add(shard.decode_s[video], self._then(done))

    def _decoded(self, shard: _Shard, video: int, began: float) -> None:
        self.decode_busy += self._timeline.now - began
        self._idle += 1
        shard.decoded.add(video)
        self._decode()
        if shard.waiting:
            self._gather(shard)

    # The model

    def _take_turn(self) -> None:
        if self._in_turn is None and self._next:
            self._in_turn = self._next.popleft()
            self._gather(self._in_turn)

    def _gather(self, shard: _Shard) -> None:
        """Take the next batch's videos in their order, and compute once it is full."""
        shard.waiting = False
        clips = min(self._setup.batch_size, shard.num_clips - shard.computed)
        wanted = -(-(shard.computed + clips) // self._setup.num_views)
        while shard.taken < wanted:
            if not self._setup.decoders:
                done = partial(self._decoded_here, shard, self._timeline.now)
                self._cores.add(shard.decode_s[shard.taken], self._then(done))
                return
            if shard.taken not in shard.decoded:
                shard.waiting = True
                return
            shard.decoded.remove(shard.taken)
            shard.taken += 1
            if shard.asked < len(shard.decode_s):
                self._ask(shard)
        compute = self._then(partial(self._compute, shard, clips))
        self._cores.add(clips * self._rates.assemble_s, compute)

    def _decoded_here(self, shard: _Shard, began: float) -> None:
        self.decode_busy += self._timeline.now - began
        shard.taken += 1
        self._gather(shard)

    def _compute(self, shard: _Shard, clips: int) -> None:
        seconds = clips * self._rates.model_s
        done = self._then(partial(self._computed, shard, clips, self._timeline.now))
        if self._setup.on_gpu:
            self._timeline.after(seconds, done)
        else:
            self._cores.add(seconds, done, demand=self._setup.threads)

    def _computed(self, shard: _Shard, clips: int, began: float) -> None:
        self.model_busy += self._timeline.now - began
        shard.computed += clips
        if shard.computed < shard.num_clips:
            self._gather(shard)
            return
        self._in_turn = None
        write = self._then(partial(self._send, shard, self._timeline.now))
        self._cores.add(shard.num_clips * self._rates.write_s, write)
        self._take_turn()

    # The commit

    def _send(self, shard: _Shard, began: float) -> None:
        speed = self._setup.stream_bytes_s
        seconds = shard.num_clips * self._setup.clip_bytes / speed
        self._store.add(seconds, self._then(partial(self._confirm, shard, began)), demand=speed)

    def _confirm(self, shard: _Shard, began: float) -> None:
        # The store's answers take their time, and nobody's capacity.
        done = self._then(partial(self._committed, shard, began))
        self._timeline.after(self._rates.commit_s, done)

    def _committed(self, shard: _Shard, began: float) -> None:
        self.commit_busy += self._timeline.now - began
        self._finished(shard.number)
