"""One shard: decode, compute, commit. The same class in this process and as a Ray actor.

A shard's clips are cut into batches by their position in the plan, and a clip that failed leaves
its slot black. So what a clip's neighbours get never depends on a failure, on timing, or on how
often a worker died; that is what makes the files of every run the same bytes.

A kind of worker (the oracle's, the evaluation's) says how a shard begins, what the model does with
a batch, and how a shard is written; everything else is here.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, NoReturn, TypeVar

import torch

from pipeline.backbones import Backbone
from pipeline.config import ClipConfig, RunConfig
from pipeline.errors import ClipStatus, DecodeError, LiteError
from pipeline.shards.executor import Attempt
from pipeline.shards.loader import Batch, ClipLoader
from pipeline.shards.poison import Guard, Isolation
from pipeline.shards.progress import PHASES
from pipeline.store.root import Root

logger = logging.getLogger(__name__)

_EXIT_BROKEN_CUDA = 70


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


@dataclass(kw_only=True)
class ShardJob(ABC):
    """One shard in work; positions are rows of the shard."""

    shard: int
    plan: dict[str, list[Any]]
    """Columns of the shard's rows of the plan."""
    todo: Sequence[int]
    """Positions to compute, ascending; the others stand as they are."""
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PHASES, 0.0))

    @abstractmethod
    def fail(self, position: int, error: DecodeError) -> None:
        """Record a clip that failed."""

    @abstractmethod
    def counts(self) -> dict[str, int]:
        """Clips per status, once all is computed."""

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count the time inside as `decode`, `compute` or `write`."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - began


JobT = TypeVar("JobT", bound=ShardJob)


class ShardWorker(ABC, Generic[JobT]):
    """Runs shards of one store or evaluation.

    `run` may be called from two threads: one shard is then decoded ahead, or written out, while
    another has the model.

    Args:
        config: which clips.
        run_config: speed settings.
        root: where results go, which must exist.
        backbone: loaded, on its device.
    """

    def __init__(
        self, config: ClipConfig, run_config: RunConfig, root: Root, backbone: Backbone
    ) -> None:
        self._in_actor = run_config.workers > 0
        self._device = backbone.device
        self._isolation = Isolation(root)
        self._loader = ClipLoader(config, run_config, backbone)
        self._model_turn = threading.Lock()
        self._most_clips: int | None = None  # what fits the GPU, once it was found to be less

    @abstractmethod
    def begin(self, shard: int) -> JobT:
        """Read what is asked for."""

    @abstractmethod
    def compute(self, job: JobT, batch: Batch) -> None:
        """Put a batch through the model and record what comes out.

        What it raises, other than a `LiteError`, is a matter of the batch's clips: it is then
        called again with each of them alone, in the batch's own shape.
        """

    @abstractmethod
    def commit(self, job: JobT) -> None:
        """Write the shard, the record of its commit last."""

    def close(self) -> None:
        """Stop the decoder processes."""
        self._loader.close()

    def run(self, shard: int, attempt: Attempt) -> ShardReport:
        """Decode, compute and commit one shard.

        Raises:
            LiteError: what is no matter of clips: a store that cannot be written, a GPU that holds
                not even one clip.
        """
        job = self.begin(shard)
        clip_ids = job.plan["clip_id"]
        with self._isolation.guarding(shard, clip_ids, cautious=attempt.cautious) as guard:
            # The decoders begin here, before it is this shard's turn on the model.
            batches = self._loader.batches(job.plan, job.todo, guard, job.fail)
            with self._model_turn:
                while True:
                    with job.phase("decode"):
                        batch = next(batches, None)
                    if batch is None:
                        break
                    with job.phase("compute"):
                        self._compute_all(job, batch, guard)
            with job.phase("write"):
                self.commit(job)
        return ShardReport(shard=shard, counts=job.counts(), seconds=job.seconds)

    def _compute_all(self, job: JobT, batch: Batch, guard: Guard) -> None:
        with guard.touching(batch.facts):
            for part in batch.split(self._most_clips or len(batch.clips)):
                self._compute_part(job, part)

    def _compute_part(self, job: JobT, batch: Batch) -> int:
        """Whole, in halves where it does not fit, clip by clip where it raises; clips that work."""
        try:
            self.compute(job, batch)
            return len(batch.facts)
        except LiteError:
            raise
        except Exception as error:
            if is_out_of_memory(error):
                if len(batch.clips) == 1:
                    raise LiteError(
                        f"one clip does not fit the memory of {self._device}: use --precision "
                        "bf16, fewer or later layers, or a larger GPU"
                    ) from error
                problem = None
            elif is_broken_cuda(error):
                self._leave(error)
            elif len(batch.facts) == 1:
                [position] = batch.facts
                message = f"{type(error).__name__}: {error}"
                job.fail(position, DecodeError(ClipStatus.MODEL_ERROR, message))
                return 0
            else:
                problem = error.with_traceback(None)
        # Outside the handler: the exception's traceback keeps the batch's tensors alive.
        if problem is None:
            self._most_clips = len(batch.clips) // 2
            self._say_that_memory_is_short(len(batch.clips), self._most_clips)
            return sum(self._compute_part(job, part) for part in batch.split(self._most_clips))
        works = sum(self._compute_part(job, batch.only([position])) for position in batch.facts)
        if not works:
            raise problem  # nothing works: the fault is not in the clips
        return works

    def _say_that_memory_is_short(self, tried: int, left: int) -> None:
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        logger.warning(
            "%s is out of memory with %d clips; going on with %d, which may change the last bits "
            "of the results (set --batch-size %d)",
            self._device,
            tried,
            left,
            left,
        )

    def _leave(self, error: Exception) -> NoReturn:
        if self._in_actor:
            logger.critical("CUDA is broken in this process, which ends: %s", error)
            os._exit(_EXIT_BROKEN_CUDA)
        raise error


def is_out_of_memory(error: Exception) -> bool:
    """Whether the device's memory did not suffice; the process may go on with less.

    Beside torch's own allocator, the driver and the libraries allocate, and say so in their words.
    """
    if isinstance(error, torch.OutOfMemoryError):
        return True
    said = ("CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")
    return any(words in str(error) for words in said)


def is_broken_cuda(error: Exception) -> bool:
    """Whether CUDA is unusable in this process from now on (anything but out of memory)."""
    if is_out_of_memory(error):
        return False
    kinds = getattr(torch, "AcceleratorError", ())
    return isinstance(error, kinds) or "CUDA error" in str(error)
