"""Measures how long the steps of a build take here: real decoders, a real worker, a sample."""

from __future__ import annotations

import logging
import os
import statistics
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.clips.plan import plan_digest
from pipeline.config import OracleConfig, RunConfig
from pipeline.decode import DecodedVideo, DecodePool
from pipeline.errors import ConfigError
from pipeline.estimate.worker import Rates
from pipeline.oracle.build import BuildPlan
from pipeline.oracle.worker import OracleWorker
from pipeline.shards.executor import Attempt
from pipeline.shards.loader import Batch
from pipeline.shards.run import with_what_is_seen
from pipeline.store.layout import CLIPS, TOKENS, ZARR
from pipeline.store.root import Root
from pipeline.store.writer import create_store

logger = logging.getLogger(__name__)

_MOST_VIDEOS = 256
_LEAST_SHARDS = 3
_LARGER = 8


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a sample showed."""

    rates: Rates
    stored: dict[str, float]
    """Bytes in the store per clip, by kind of file."""
    num_videos: int
    """That were decoded on their own."""
    num_failed: int
    """Of those, which could not be."""
    num_clips: int
    """That went through the model; the first batch, which warms it up, is not counted."""


class _TimedWorker(OracleWorker):
    """Notes how long the model takes for each batch."""

    def __init__(self, config: OracleConfig, run_config: RunConfig, root: Root) -> None:
        super().__init__(config, run_config, root)
        self.batches: list[tuple[int, float]] = []

    def compute(self, job: Any, batch: Batch) -> None:
        """As it is, with a clock beside it."""
        began = time.perf_counter()
        super().compute(job, batch)
        self.batches.append((len(batch.clips), time.perf_counter() - began))

    def time_decoding(self, plan: dict[str, Any], num_decoders: int, seconds: float) -> _Decoding:
        """Decode videos one after the other, by one process, for some seconds."""
        groups = self._loader.groups(plan, range(len(plan["clip_id"])))
        found = _Decoding()
        with DecodePool(num_decoders) as pool:
            results = pool.imap((group.request for group in groups), look_ahead=1)
            end = None
            while True:
                began = time.perf_counter()
                result = next(results, None)
                now = time.perf_counter()
                if result is None or (end is not None and began > end and found.seconds):
                    return found
                if end is None:  # the first answer waited for its process to start
                    end = now + seconds
                    continue
                found.add(result, now - began)


@dataclass
class _Decoding:
    seconds: list[float] = field(default_factory=list)
    assembling: list[float] = field(default_factory=list)  # per clip
    failed: int = 0

    def add(self, result: object, seconds: float) -> None:
        self.seconds.append(seconds)
        if not isinstance(result, DecodedVideo):
            self.failed += 1
            return
        began = time.perf_counter()
        np.zeros_like(result.clips)[:] = result.clips  # as it goes into a batch
        self.assembling.append((time.perf_counter() - began) / len(result.clips))


@dataclass(frozen=True, kw_only=True)
class _Trial:
    """What shards of one size took."""

    shard_size: int
    start_s: float
    decoding: _Decoding
    batches: list[tuple[int, float]]
    """Clips and seconds of each."""
    write_s: float
    """Of a shard."""
    stored: dict[str, float]


def measure(prepared: BuildPlan, run: RunConfig, seconds: float) -> Measured:
    """Build small stores of a sample in a temporary folder, and time the steps.

    Args:
        prepared: the build; an even sample of its videos is taken.
        run: its settings. One decoder and one worker are measured, whatever it says.
        seconds: of measuring, about; starting takes its own.

    Raises:
        ConfigError: no seconds, or no clip of the sample that works.
        LiteError: what would end a build.
    """
    if not seconds > 0:
        raise ConfigError(f"seconds of measuring must be above 0, got {seconds!r}")
    _warn_of_other_work()
    run = replace(run, workers=0, ray_address=None, decode_workers=min(1, run.decode_workers))
    run = with_what_is_seen(run, prepared.config, prepared.plan["path"].to_pylist())
    size = max(prepared.config.num_views, run.batch_size)
    small = _try(prepared, run, size, decode_s=seconds / 3, least=_LEAST_SHARDS, most_s=seconds / 3)
    if not small.batches:
        raise ConfigError(
            f"not one of the sampled videos in {run.data_root} went through decoder and model; "
            "`lite-pipeline datasets check` says what is there"
        )
    # The first batch warms the model up; where there is no other, it has to do.
    clips, spent = map(sum, zip(*(small.batches[1:] or small.batches), strict=True))
    decode_s = statistics.fmean(small.decoding.seconds) / prepared.config.num_views
    # What a commit costs beside its clips shows in a larger one, if there is time for that.
    larger = min(_LARGER * size, prepared.config.shard_size, prepared.plan.num_rows)
    large, write_s, commit_s = small, small.write_s / size, 0.0
    if larger > size and larger * (decode_s + spent / clips) < seconds:
        large = _try(prepared, run, larger, decode_s=0.0, least=1, most_s=0.0)
        write_s = max(0.0, (large.write_s - small.write_s) / (larger - size))
        commit_s = max(0.0, small.write_s - size * write_s)
    rates = Rates(
        decode_s=tuple(small.decoding.seconds),
        model_s=spent / clips,
        assemble_s=statistics.median(small.decoding.assembling or [0.0]),
        write_s=write_s,
        commit_s=commit_s,
        start_s=small.start_s,
    )
    return Measured(
        rates=rates,
        stored=large.stored,
        num_videos=len(small.decoding.seconds),
        num_failed=small.decoding.failed,
        num_clips=int(clips),
    )


def _warn_of_other_work() -> None:
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    if load > cores / 2:
        logger.warning(
            "this machine is busy (load %.1f on %d cores): the rates measured now are too low for "
            "one that is not, and a run of several processes gets less than is foreseen",
            load,
            cores,
        )


def _try(
    prepared: BuildPlan, run: RunConfig, size: int, *, decode_s: float, least: int, most_s: float
) -> _Trial:
    """Build a part of a store of the sample.

    Args:
        prepared: the whole build.
        run: settings of the one worker.
        size: clips per shard.
        decode_s: seconds of decoding alone before that.
        least: shards.
        most_s: seconds after which no further shard begins.
    """
    plan = _sample(prepared.plan, prepared.config.num_views, size)
    config = replace(prepared.config, plan_digest=plan_digest(plan), shard_size=size)
    grid, hidden_size, names = prepared.grid, prepared.hidden_size, prepared.label_names
    with tempfile.TemporaryDirectory() as folder:
        root = Root(str(Path(folder) / "store"))
        with create_store(root, config, plan, grid, hidden_size, names) as store:
            began = time.perf_counter()
            worker = _TimedWorker(config, run, root)
            start_s = time.perf_counter() - began
            try:
                decoding = worker.time_decoding(plan.to_pydict(), run.decode_workers, decode_s)
                write_s = _run_shards(worker, store.pending(), least, most_s)
            finally:
                worker.close()
            return _Trial(
                shard_size=size,
                start_s=start_s,
                decoding=decoding,
                batches=worker.batches,
                write_s=statistics.median(write_s),
                stored=_bytes_per_clip(root, len(store.committed()) * size),
            )


def _sample(plan: pa.Table, num_views: int, shard_size: int) -> pa.Table:
    """Rows of an even sample of the videos, numbered as a plan of their own."""
    num_videos = plan.num_rows // num_views
    chosen = np.unique(np.linspace(0, num_videos - 1, min(num_videos, _MOST_VIDEOS)).astype(int))
    rows = (chosen[:, None] * num_views + np.arange(num_views)).ravel()
    clip_id = np.arange(len(rows))
    sample = plan.take(rows)
    for name, values in {"clip_id": clip_id, "shard": clip_id // shard_size}.items():
        at = sample.schema.get_field_index(name)
        column = pa.array(values).cast(sample.schema.field(name).type)
        sample = sample.set_column(at, sample.schema.field(name), column)
    return sample


def _run_shards(worker: _TimedWorker, shards: list[int], least: int, most_s: float) -> list[float]:
    """Do shards; seconds to write each."""
    end, written = 0.0, []
    for done, shard in enumerate(shards):
        if done >= least and time.perf_counter() > end:
            break
        written.append(worker.run(shard, Attempt(final=True)).seconds["write"])
        end = end or time.perf_counter() + most_s  # the first also waits for a decoder to start
    return written


def _bytes_per_clip(root: Root, num_clips: int) -> dict[str, float]:
    """Of committed shards, by kind: `scores`, `cam` ..., `tokens`, `clips`."""
    total: dict[str, int] = {}
    for path in root.walk():
        kind, *rest = path.split("/")
        if kind == ZARR and len(rest) == 2 and rest[1].startswith("c."):
            kind = rest[0]
        elif kind not in (TOKENS, CLIPS):
            continue
        total[kind] = total.get(kind, 0) + len(root.get(path))
    return {kind: size / num_clips for kind, size in total.items()}
