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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, NoReturn, TypeVar

import torch

from pipeline.backbones import Backbone
from pipeline.config import ClipConfig, RunConfig
from pipeline.errors import (
    ClipStatus,
    DecodeError,
    LiteError,
    ModelFailsError,
    NoReadableVideoError,
)
from pipeline.shards.executor import Attempt, Isolation
from pipeline.shards.loader import Batch, ClipLoader
from pipeline.shards.progress import PHASES

logger = logging.getLogger(__name__)

_EXIT_BROKEN_CUDA = 70
_CRASHES = "the process crashed on this clip every time that it was tried alone"


@dataclass(frozen=True, kw_only=True)
class ShardReport:
    """What a committed shard tells the driver."""

    shard: int
    counts: dict[str, int]
    """Clips per status."""
    seconds: dict[str, float]
    """Seconds spent in `decode` (waiting for it), `compute` and `write`."""
    num_worked: int
    """Clips that came out of the model as numbers."""
    batch_size: int
    """Clips that go through the model at a time, after halving where the memory is short."""
    host: str = field(default_factory=socket.gethostname)
    """Who did it, and in which process: the caller."""
    pid: int = field(default_factory=os.getpid)

    @classmethod
    def after_death(
        cls, shard: int, counts: Mapping[str, int], run_config: RunConfig
    ) -> ShardReport:
        """Of a shard that was committed by a worker that died before it could say so."""
        return cls(
            shard=shard,
            counts=dict(counts),
            seconds={},
            num_worked=counts.get(ClipStatus.OK, 0),
            batch_size=run_config.batch_size,
            host="",
            pid=0,
        )

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
    is_retry: bool = False
    """Whether the clips to do have failed before, so that it is no wonder if all fail again."""
    failures: dict[int, DecodeError] = field(default_factory=dict)
    """Why clips did not get through the model, by position."""
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PHASES, 0.0))

    @abstractmethod
    def fail(self, position: int, error: DecodeError) -> None:
        """Record a clip that failed."""

    @abstractmethod
    def counts(self) -> dict[str, int]:
        """Clips per status, once all is computed."""

    @abstractmethod
    def num_worked(self) -> int:
        """Clips that came out of the model as numbers."""

    def note_failure(self, position: int, error: DecodeError) -> None:
        """A clip did not get through the model."""
        self.failures[position] = error
        self.fail(position, error)

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
        backbone: loaded, on its device.
    """

    def __init__(self, config: ClipConfig, run_config: RunConfig, backbone: Backbone) -> None:
        self._run_config, self._device = run_config, backbone.device
        self._loader = ClipLoader(config, run_config, backbone)
        self._model_turn = threading.Lock()
        self._most_clips: int | None = None  # what fits the GPU, once it was found to be less
        self.facts = numerics(backbone.device, run_config)

    @abstractmethod
    def begin(self, shard: int) -> JobT:
        """Read what is asked for."""

    @abstractmethod
    def compute(self, job: JobT, batch: Batch) -> None:
        """Put a batch through the model and record what comes out.

        What it raises, other than a `LiteError`, is a matter of the batch's clips: it is then
        called again with each of them alone, in the batch's own shape.
        """

    def finish(self, job: JobT) -> None:
        """Do what is left to do after the model, while the next shard has it."""

    @abstractmethod
    def commit(self, job: JobT) -> None:
        """Write the shard, the record of its commit last."""

    def close(self) -> None:
        """Stop the decoder processes."""
        self._loader.close()

    def run(self, shard: int, attempt: Attempt) -> ShardReport:
        """Decode, compute and commit one shard.

        Raises:
            NothingWorksError: not one clip of it does; nothing is committed.
            UnfitWorkerError: no video of it can be read, nor those that the run could read.
            LiteError: what is no matter of clips: a store that cannot be written, a GPU that holds
                not even one clip.
        """
        job, isolation = self.begin(shard), attempt.isolation or Isolation()
        todo = self._without_blamed(job, isolation)
        # The decoders begin here, before it is this shard's turn on the model.
        batches = self._loader.batches(
            job.plan, todo, job.note_failure, isolated=attempt.isolation is not None
        )
        with self._model_turn:
            while True:
                with job.phase("decode"):
                    batch = next(batches, None)
                if batch is None:
                    break
                with job.phase("compute"):
                    self._compute_isolated(job, batch, isolation)
        with job.phase("write"):
            self.finish(job)
            self._check_before_commit(job, todo, attempt)
            if not attempt.dry_run:
                self.commit(job)
        return ShardReport(
            shard=shard,
            counts=job.counts(),
            seconds=job.seconds,
            num_worked=job.num_worked(),
            batch_size=self._most_clips or self._run_config.batch_size,
        )

    def _without_blamed(self, job: JobT, isolation: Isolation) -> list[int]:
        """Positions to do; clips that crash every process are recorded and left out."""
        clip_ids = job.plan["clip_id"]
        blamed = [position for position in job.todo if clip_ids[position] in isolation.blamed]
        for position in blamed:
            job.fail(position, DecodeError(ClipStatus.WORKER_DIED, _CRASHES))
        return [position for position in job.todo if position not in blamed]

    def _check_before_commit(self, job: JobT, todo: Sequence[int], attempt: Attempt) -> None:
        """A shard of nothing but failures is more likely the worker's fault than the clips'."""
        unread = {p: e for p, e in job.failures.items() if e.status != ClipStatus.MODEL_ERROR}
        if unread:
            self._loader.check_known_videos()
        if job.num_worked() or not todo or attempt.final or job.is_retry:
            return
        if len(unread) < len(todo):
            raise ModelFailsError(_of_model(job, len(todo) - len(unread)))
        if not self._run_config.accept_missing:
            raise NoReadableVideoError(_of_videos(job, self._run_config.data_root))

    def _compute_isolated(self, job: JobT, batch: Batch, isolation: Isolation) -> None:
        """Clips that may crash the process one at a time; whoever watches it is told which."""
        clip_ids = job.plan["clip_id"]
        alone = [p for p in batch.facts if clip_ids[p] in isolation.suspects]
        together = [position for position in batch.facts if position not in alone]
        for positions in ([together] if together else []) + [[position] for position in alone]:
            isolation.note([clip_ids[position] for position in positions])
            self._compute_all(job, batch.only(positions))
            isolation.note([])  # a death from here on is no clip's doing

    def _compute_all(self, job: JobT, batch: Batch) -> None:
        for part in batch.split(self._most_clips or len(batch.clips)):
            self._compute_part(job, part)

    def _compute_part(self, job: JobT, batch: Batch) -> None:
        """Whole, in halves where it does not fit, clip by clip where it raises."""
        try:
            self.compute(job, batch)
            return
        except LiteError:
            raise
        except Exception as error:
            if is_out_of_memory(error):
                if len(batch.clips) == 1:
                    raise LiteError(
                        f"one clip does not fit the memory of {self._device}: use --precision "
                        "bf16, fewer or later layers, or a larger GPU"
                    ) from error
                too_large = True
            elif is_broken_cuda(error):
                self._leave(error)
            elif len(batch.facts) == 1:
                [position] = batch.facts
                message = f"{type(error).__name__}: {error}"
                job.note_failure(position, DecodeError(ClipStatus.MODEL_ERROR, message))
                return
            else:
                too_large = False
        # Outside the handler: the exception's traceback keeps the batch's tensors alive.
        if too_large:
            self._most_clips = len(batch.clips) // 2
            self._say_that_memory_is_short(len(batch.clips), self._most_clips)
            self._compute_all(job, batch)
        else:
            for position in batch.facts:
                self._compute_part(job, batch.only([position]))

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
        if self._run_config.workers > 0:
            logger.critical("CUDA is broken in this process, which ends: %s", error)
            os._exit(_EXIT_BROKEN_CUDA)
        raise error


def _of_model(job: ShardJob, num_clips: int) -> str:
    raised = (e for _, e in sorted(job.failures.items()) if e.status == ClipStatus.MODEL_ERROR)
    why = next(raised, "it returns numbers that are not finite")
    return (
        f"the model fails on all {num_clips} clips of shard {job.shard} ({why}): nothing of the "
        "shard is recorded"
    )


def _of_videos(job: ShardJob, data_root: str) -> str:
    position, why = min(job.failures.items())
    return (
        f"not one of the {len(set(job.plan['video_id']))} videos of shard {job.shard} can be "
        f"decoded; the first is {job.plan['path'][position]} ({why}). Is {data_root} the dataset's "
        "folder, and complete? Nothing of the shard is recorded; --accept-missing records such "
        "videos as failed"
    )


_OUT_OF_MEMORY = (
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "DefaultCPUAllocator: can't allocate memory",
)


def is_out_of_memory(error: Exception) -> bool:
    """Whether the device's memory did not suffice; the process may go on with less.

    Beside torch's own allocator, the driver and the libraries allocate, and say so in their words.
    """
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return any(words in str(error) for words in _OUT_OF_MEMORY)


def is_broken_cuda(error: Exception) -> bool:
    """Whether CUDA is unusable in this process from now on (anything but out of memory)."""
    if is_out_of_memory(error):
        return False
    kinds = getattr(torch, "AcceleratorError", ())
    return isinstance(error, kinds) or "CUDA error" in str(error)


def numerics(device: torch.device, run_config: RunConfig) -> dict[str, Any]:
    """What may change the last bits of results, beside the configuration they are stored under."""
    facts: dict[str, Any] = {"device": "cpu", "threads": run_config.threads_per_worker}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        facts = {
            "device": f"{properties.name}, capability {properties.major}.{properties.minor}",
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
        }
    return facts | {"torch": torch.__version__, "batch_size": run_config.batch_size}
