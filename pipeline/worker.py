"""One shard: decode, score, commit. The same class in this process and as a Ray actor.

A shard's clips are cut into batches by their position in the plan, and a clip that failed leaves
its slot black. So what a clip's neighbours get never depends on a failure, on timing, or on how
often a worker died; that is what makes the files of every run the same bytes.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.attempt import Attempt, ShardReport
from pipeline.batches import Batch, assemble, group_by_video
from pipeline.config import OracleConfig, RunConfig
from pipeline.decode.pool import DecodePool
from pipeline.errors import ClipStatus, DecodeError, LiteError
from pipeline.isolation import Findings, Isolation
from pipeline.scorer import Scored, Scorer, is_broken_cuda
from pipeline.store.info import read_info
from pipeline.store.result import ShardResult
from pipeline.store.root import Root
from pipeline.store.writer import committed_shards, load_result, read_plan, write_shard

logger = logging.getLogger(__name__)

PHASES = ("decode", "compute", "write")
_EXIT_BROKEN_CUDA = 70


@dataclass
class _Job:
    """One shard in work; positions are rows of the shard."""

    shard: int
    plan: dict[str, list[Any]]
    result: ShardResult
    todo: list[int]
    findings: Findings
    cautious: bool
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PHASES, 0.0))
    scored: list[_Step] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.clip_ids = np.array(self.plan["clip_id"], np.int64)
        self.labels = np.array(self.plan["label"], np.int64)

    def fail(self, position: int, error: DecodeError) -> None:
        """Record a clip that failed."""
        self.result.set_failed(position, error.status, str(error))


@dataclass(frozen=True)
class _Step:
    """Clips that went through the model together; `slots` maps positions to rows of `output`."""

    output: Scored
    slots: dict[int, int]
    facts: dict[int, dict[str, Any]]


class OracleWorker:
    """Runs shards of one store.

    `run` may be called from two threads: one shard is then decoded ahead, or written out, while
    another has the model.

    Args:
        config: the store's.
        run_config: speed settings.
        root: the store, which must exist.
        retry: statuses to try again in committed shards; None does whole shards.
    """

    def __init__(
        self,
        config: OracleConfig,
        run_config: RunConfig,
        root: Root,
        retry: tuple[str, ...] | None = None,
    ) -> None:
        self._config = config
        self._run_config = run_config
        self._root = root
        self._retry = retry
        self._info = read_info(root)
        self._isolation = Isolation(root)
        self._scorer = Scorer(config, run_config)
        self._pool = DecodePool(run_config.decode_workers)
        # What killed a worker may have been a decoder within it; a cautious attempt never has one.
        self._safe_pool = self._pool if run_config.decode_workers else DecodePool(1)
        self._model_turn = threading.Lock()

    def close(self) -> None:
        """Stop the decoder processes."""
        self._pool.close()
        self._safe_pool.close()

    def run(self, shard: int, attempt: Attempt) -> ShardReport:
        """Decode, score and commit one shard.

        Raises:
            StoreError: the store is damaged, or cannot be written.
        """
        findings = self._isolation.findings(shard)
        self._isolation.touching(shard, None)
        try:
            job = self._prepare(shard, findings, cautious=attempt.cautious or findings is not None)
            self._score_all(job)
            self._commit(job)
        except BaseException:
            self._isolation.let_go(shard)  # this process lives: no clip is to blame
            raise
        return ShardReport(
            shard=shard,
            counts=dict(Counter(row["status"] for row in job.result.clips if row)),
            seconds=job.seconds,
            host=socket.gethostname(),
            pid=os.getpid(),
        )

    def _prepare(self, shard: int, findings: Findings | None, *, cautious: bool) -> _Job:
        plan = read_plan(self._root, shard).to_pydict()
        num_clips = len(plan["clip_id"])
        if self._retry is not None and shard in committed_shards(self._root):
            result = load_result(self._root, shard)
            todo = [p for p, row in enumerate(result.clips) if row and row["status"] in self._retry]
        else:
            config = self._info.config
            result = ShardResult(
                num_clips, self._info.grid, config.tokens_per_clip, self._info.hidden_size
            )
            todo = list(range(num_clips))
        job = _Job(shard, plan, result, todo, findings or Findings(), cautious)
        for position in [p for p in todo if plan["clip_id"][p] in job.findings.culprits]:
            todo.remove(position)
            message = "the worker process died on this clip every time it was tried alone"
            result.set_failed(position, ClipStatus.WORKER_DIED, message)
        return job

    def _score_all(self, job: _Job) -> None:
        backbone, size = self._scorer.backbone, self._scorer.backbone.image_size
        template = {
            "num_frames": backbone.num_frames,
            "size": size,
            "short_side": backbone.short_side,
            "sampling": self._config.sampling,
            "decoder": self._config.decoder,
            "timeout_s": self._run_config.decode_timeout_s,
            "max_pixels": self._run_config.max_pixels,
            "max_frames": self._run_config.max_frames,
            "min_frames": backbone.tubelet_size,
        }
        views = (self._config.num_segments, self._config.num_crops)
        groups = group_by_video(job.plan, job.todo, self._run_config.data_root, views, template)
        # The decoders begin here, before it is this shard's turn on the model.
        pool = self._safe_pool if job.cautious else self._pool
        decoded = pool.imap((group.request for group in groups), self._look_ahead())
        batches = assemble(
            groups,
            decoded,
            len(job.clip_ids),
            self._run_config.batch_size,
            (backbone.num_frames, size, size, 3),
            job.fail,
        )
        with self._model_turn:
            for batch in _timed(batches, job.seconds, "decode"):
                began = time.perf_counter()
                for step in _steps(batch, job):
                    job.scored += self._score_step(job, batch, step)
                job.seconds["compute"] += time.perf_counter() - began

    def _look_ahead(self) -> int:
        """Videos decoded ahead: two batches of them, or two per decoder, whichever is more."""
        per_video = self._config.num_segments * self._config.num_crops
        batches = -(-2 * self._run_config.batch_size // per_video)
        return max(batches, 2 * self._run_config.decode_workers)

    def _score_step(self, job: _Job, batch: Batch, positions: list[int]) -> list[_Step]:
        """Score some clips of a batch, in the batch's own shape; the other slots are black."""
        slots = {position: position - batch.start for position in positions}
        clips = batch.clips
        if len(slots) < len(batch.facts):
            clips = np.zeros_like(clips)
            for slot in slots.values():
                clips[slot] = batch.clips[slot]
        rows = slice(batch.start, batch.start + len(clips))
        if job.cautious:
            self._isolation.touching(job.shard, job.clip_ids[positions].tolist())
        try:
            output = self._scorer(clips, job.labels[rows], job.clip_ids[rows])
        except LiteError:
            raise
        except Exception as error:
            if is_broken_cuda(error):
                self._leave(error)
            if len(positions) == 1:
                message = f"{type(error).__name__}: {error}"
                job.fail(positions[0], DecodeError(ClipStatus.MODEL_ERROR, message))
                return []
            steps = [step for p in positions for step in self._score_step(job, batch, [p])]
            if not steps:
                raise  # nothing works: the fault is not in the clips
            return steps
        finally:
            if job.cautious:
                self._isolation.touching(job.shard, [])  # a death from here on is no clip's doing
        return [_Step(output, slots, batch.facts)]

    def _leave(self, error: Exception) -> None:
        """CUDA is unusable in this process: a Ray worker ends, so that a fresh one takes over."""
        if self._run_config.workers > 0:
            logger.critical("CUDA is broken in this process, which ends: %s", error)
            os._exit(_EXIT_BROKEN_CUDA)
        raise error

    def _commit(self, job: _Job) -> None:
        began = time.perf_counter()
        for step in job.scored:
            _record(job, step)
        write_shard(self._root, job.shard, job.result)
        self._isolation.committed(job.shard)
        job.seconds["write"] += time.perf_counter() - began


def _steps(batch: Batch, job: _Job) -> list[list[int]]:
    """The positions to score together: all of them, but suspects of a death one at a time."""
    suspects = job.findings.suspects
    alone = [p for p in batch.facts if job.clip_ids[p] in suspects]
    together = [p for p in batch.facts if p not in alone]
    return ([together] if together else []) + [[position] for position in alone]


def _record(job: _Job, step: _Step) -> None:
    """Fill the rows of clips that were scored together."""
    output = step.output
    best, confidence, log_probs = _classify(output.logits)
    for position, slot in step.slots.items():
        label = job.labels[position]
        loss = None if label < 0 else -float(log_probs[slot, label])
        kept: dict[str, Any] = {}
        if output.tokens is not None and output.token_index is not None:
            kept = {"tokens": output.tokens[slot], "token_index": output.token_index[slot]}
        job.result.set_ok(
            position,
            scores=output.scores[slot],
            cam=output.cam[slot],
            prediction=int(best[slot, 0]),
            top5=best[slot].tolist(),
            confidence=float(confidence[slot]),
            true_prob=None if loss is None else float(np.exp(-loss)),
            loss=loss,
            degenerate=not output.scores[slot].any(),
            **kept,
            **step.facts[position],
        )


def _classify(
    logits: npt.NDArray[np.float32],
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Top-5 classes (B, 5), probability of the first (B,), and log-probabilities (B, C)."""
    with np.errstate(invalid="ignore"):  # not finite: the row becomes a model error
        shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
        log_probs = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    best = np.argsort(-logits, axis=1, kind="stable")[:, :5]
    confidence = np.exp(np.take_along_axis(log_probs, best[:, :1], axis=1))[:, 0]
    return best, confidence, log_probs


def _timed(items: Iterable[Batch], seconds: dict[str, float], phase: str) -> Iterator[Batch]:
    """Pass items on, adding the time spent waiting for them."""
    iterator = iter(items)
    while True:
        began = time.perf_counter()
        item = next(iterator, None)
        seconds[phase] += time.perf_counter() - began
        if item is None:
            return
        yield item
