"""One shard: decode, score, commit. The same class in this process and as a Ray actor.

A shard's clips are cut into batches by their position in the plan, and a clip that failed leaves
its slot black. So what a clip's neighbours get never depends on a failure, on timing, or on how
often a worker died; that is what makes the files of every run the same bytes.
"""

from __future__ import annotations

import functools
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.config import OracleConfig, RunConfig
from pipeline.errors import DecodeError
from pipeline.oracle.scorer import Scored, Scorer
from pipeline.shards.batch_runs import run_steps
from pipeline.shards.batches import Batch
from pipeline.shards.clip_loader import Feed
from pipeline.shards.poison import Guard, Isolation
from pipeline.shards.worker import Attempt, ShardReport
from pipeline.store.info import read_info
from pipeline.store.result import ShardResult
from pipeline.store.root import Root
from pipeline.store.writer import committed_shards, load_result, read_plan, write_shard

PHASES = ("decode", "compute", "write")


@dataclass
class _Job:
    """One shard in work; positions are rows of the shard."""

    shard: int
    plan: dict[str, list[Any]]
    guard: Guard
    result: ShardResult
    todo: list[int]
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
    """Clips that went through the model together: row i of `output` is position `start` + i."""

    output: Scored
    start: int
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
        self._feed = Feed(config, run_config, self._scorer.backbone)
        self._model_turn = threading.Lock()

    def close(self) -> None:
        """Stop the decoder processes."""
        self._feed.close()

    def run(self, shard: int, attempt: Attempt) -> ShardReport:
        """Decode, score and commit one shard.

        Raises:
            StoreError: the store is damaged, or cannot be written.
        """
        plan = read_plan(self._root, shard).to_pydict()
        clip_ids = plan["clip_id"]
        with self._isolation.guarding(shard, clip_ids, cautious=attempt.cautious) as guard:
            job = self._prepare(shard, plan, guard)
            self._score_all(job)
            self._commit(job)
        return ShardReport(
            shard=shard,
            counts=dict(Counter(row["status"] for row in job.result.clips if row)),
            seconds=job.seconds,
        )

    def _prepare(self, shard: int, plan: dict[str, list[Any]], guard: Guard) -> _Job:
        if self._retry is not None and shard in committed_shards(self._root):
            result = load_result(self._root, shard)
            todo = [p for p, row in enumerate(result.clips) if row and row["status"] in self._retry]
            return _Job(shard, plan, guard, result, todo)
        num_clips, config = len(plan["clip_id"]), self._info.config
        result = ShardResult(
            num_clips, self._info.grid, config.tokens_per_clip, self._info.hidden_size
        )
        return _Job(shard, plan, guard, result, list(range(num_clips)))

    def _score_all(self, job: _Job) -> None:
        # The decoders begin here, before it is this shard's turn on the model.
        batches = self._feed.batches(job.plan, job.todo, job.guard, job.fail)
        in_actor = self._run_config.workers > 0
        with self._model_turn:
            for batch in _timed(batches, job.seconds, "decode"):
                began = time.perf_counter()
                job.scored += run_steps(
                    batch,
                    functools.partial(self._score, job),
                    job.guard,
                    job.fail,
                    in_actor=in_actor,
                )
                job.seconds["compute"] += time.perf_counter() - began

    def _score(self, job: _Job, batch: Batch) -> _Step:
        rows = slice(batch.start, batch.start + len(batch.clips))
        output = self._scorer(batch.clips, job.labels[rows], job.clip_ids[rows])
        return _Step(output, batch.start, batch.facts)

    def _commit(self, job: _Job) -> None:
        began = time.perf_counter()
        for step in job.scored:
            _record(job, step)
        write_shard(self._root, job.shard, job.result)
        job.seconds["write"] += time.perf_counter() - began


def _record(job: _Job, step: _Step) -> None:
    """Fill the rows of clips that were scored together."""
    output = step.output
    best, confidence, log_probs = _classify(output.logits)
    for position, facts in step.facts.items():
        slot, label = position - step.start, job.labels[position]
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
            **facts,
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
