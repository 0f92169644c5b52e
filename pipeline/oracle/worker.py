"""The oracle's worker: scores a shard's clips and commits them to the store."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import log_softmax

from pipeline.config import OracleConfig, RunConfig
from pipeline.errors import ClipStatus, DecodeError
from pipeline.oracle.scorer import Scored, Scorer
from pipeline.shards.loader import Batch
from pipeline.shards.worker import ShardJob, ShardWorker
from pipeline.store.result import ShardResult
from pipeline.store.root import Root
from pipeline.store.shard_writer import ShardWriter


@dataclass(frozen=True)
class _Step:
    """Clips that went through the model together: row i of `output` is position `start` + i."""

    output: Scored
    start: int
    facts: dict[int, dict[str, Any]]


@dataclass(kw_only=True)
class _Job(ShardJob):
    """One shard in work, and what the model has said so far."""

    result: ShardResult
    scored: list[_Step] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.clip_ids = np.array(self.plan["clip_id"], np.int64)
        self.labels = np.array(self.plan["label"], np.int64)

    def fail(self, position: int, error: DecodeError) -> None:
        """Record a clip that failed."""
        self.result.set_failed(position, error.status, str(error))

    def counts(self) -> dict[str, int]:
        """Clips per status."""
        return dict(Counter(row["status"] for row in self.result.clips if row))

    def num_worked(self) -> int:
        """Clips that have scores."""
        return self.counts().get(ClipStatus.OK, 0)


class OracleWorker(ShardWorker[_Job]):
    """Runs shards of one store.

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
        self._scorer = Scorer(config, run_config)
        super().__init__(config, run_config, self._scorer.backbone)
        self._store, self._retry = ShardWriter(root), retry

    def begin(self, shard: int) -> _Job:
        """A shard's plan and its rows: none yet, or those that a retry does not touch."""
        plan = self._store.plan(shard).to_pydict()
        result = None if self._retry is None else self._store.load(shard)
        if self._retry is not None and result is not None:
            todo = [p for p, row in enumerate(result.clips) if row and row["status"] in self._retry]
            return _Job(shard=shard, plan=plan, todo=todo, result=result, is_retry=True)
        result = self._store.new_result(shard)
        return _Job(shard=shard, plan=plan, todo=range(len(result)), result=result)

    def compute(self, job: _Job, batch: Batch) -> None:
        """Score a batch; its rows are filled in while the next shard has the model."""
        rows = slice(batch.start, batch.start + len(batch.clips))
        output = self._scorer(batch.clips, job.labels[rows], job.clip_ids[rows])
        job.scored.append(_Step(output, batch.start, batch.facts))

    def finish(self, job: _Job) -> None:
        """Fill in the rows."""
        while job.scored:
            _record(job, job.scored.pop())  # and let go of it: the shard is in memory once

    def commit(self, job: _Job) -> None:
        """Write the shard."""
        self._store.write(job.shard, job.result)


def _record(job: _Job, step: _Step) -> None:
    """Fill the rows of clips that were scored together."""
    output = step.output
    best, confidence, log_probs = _classify(output.logits)
    for position, facts in step.facts.items():
        slot, label = position - step.start, job.labels[position]
        loss = None if label < 0 else -float(log_probs[slot, label])
        kept: dict[str, Any] = {}
        if output.embeddings is not None and output.embedding_index is not None:
            kept = {
                "embeddings": output.embeddings[slot],
                "embedding_index": output.embedding_index[slot],
            }
        job.result.set_ok(
            position,
            scores=output.scores[slot],
            cam=output.cam[slot],
            prediction=int(best[slot, 0]),
            top5=best[slot].tolist(),
            confidence=float(confidence[slot]),
            true_prob=None if loss is None else float(np.exp(-loss)),
            loss=loss,
            **kept,
            **facts,
        )


def _classify(
    logits: npt.NDArray[np.float32],
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Top-5 classes (B, 5), probability of the first (B,), and log-probabilities (B, C)."""
    with np.errstate(invalid="ignore"):  # not finite: the row becomes a model error
        log_probs = log_softmax(logits.astype(np.float64), axis=1)
    best = np.argsort(-logits, axis=1, kind="stable")[:, :5]
    confidence = np.exp(np.take_along_axis(log_probs, best[:, :1], axis=1))[:, 0]
    return best, confidence, log_probs
