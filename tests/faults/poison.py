"""An evaluation with a clip that crashes its worker, and what must be left of it in the end."""

from __future__ import annotations

import faulthandler
import functools
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import ClipStatus
from pipeline.store.tables import parquet_bytes
from selector.evaluation.files import Evaluation
from selector.evaluation.worker import EvalWorker


def poisoned(clip: int) -> Callable[..., Any]:
    """A picklable `worker_class`."""
    return functools.partial(PoisonedEvalWorker, clip)


class PoisonedEvalWorker(EvalWorker):
    """`EvalWorker` that crashes whenever its model is given one certain clip."""

    def __init__(self, clip: int, *args: Any) -> None:
        super().__init__(*args)
        self._clip = clip
        if self._run_config.decode_workers == 0:
            # The poison here is not the decoder's: spare an isolated attempt its decoder process.
            self._loader._safe_pool = self._loader._pool

    def _embed(self, batch: Any, job: Any) -> Any:
        for clip, position in zip(batch.clips, batch.positions, strict=True):
            if job.plan["clip_id"][position] == self._clip and clip.any():  # black is no clip
                faulthandler.disable()  # of pytest, which would describe a crash at length
                os.kill(os.getpid(), signal.SIGSEGV)
        return super()._embed(batch, job)


def check_that_only_it_failed(out: Path, undisturbed: Path, clip: int) -> None:
    """The clip failed in all its rows, and all others are those of a run without poison."""
    ours, theirs = Evaluation(str(out)), Evaluation(str(undisturbed))
    assert ours.pending() == []
    found: list[str] = []
    for shard in ours.shards():
        mine, wanted = ours.read_shard(shard), theirs.read_shard(shard)
        found += mine.filter(pc.field("clip_id") == clip)["status"].to_pylist()
        assert _others(mine, clip) == _others(wanted, clip)
    assert found == [ClipStatus.WORKER_DIED] * len(ours.config.conditions)
    assert not (out / "runs/in-work.json").exists()


def _others(rows: pa.Table, clip: int) -> bytes:
    return parquet_bytes(rows.filter(pc.field("clip_id") != clip))
