"""The estimate of a build: its clips, rates that are given or measured, the run, and the store."""

from __future__ import annotations

import bisect
import math
import os
from dataclasses import dataclass, replace
from typing import Any

from pipeline.backbones import load_backbone
from pipeline.clips.grid import TokenGrid
from pipeline.config import OracleConfig, RunConfig, require_at_least
from pipeline.errors import ConfigError
from pipeline.estimate.measure import Measured, measure
from pipeline.estimate.simulate import Cluster, Forecast, simulate
from pipeline.estimate.worker import Rates, WorkerSetup
from pipeline.oracle.build import prepare
from pipeline.store.layout import TOKENS, array_specs, num_embeddings

WRITE_S = 0.0009
"""Seconds of a core to write a clip of VideoMAE-B; `benchmarks/estimate_error.py --commit`."""
BUSY = 0.95
"""Share of the time in which a model computes that is not kept waiting."""
_SHARDS_TRIED = 12
DRIVER_S = 0.001
"""Seconds of the driver per shard; `benchmarks/estimate_error.py --driver` measures them."""
RAY_START_S = 6.0
"""From the call to a Ray actor's first line, beside loading the model."""
TOKEN_BYTES = 1.7
"""Of a token and an oracle in Parquet, compressed; an array's entry takes 2 at most."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where the run is to take place, and what is known of it.

    Attributes:
        gpus: of a node, each with one worker; 0 runs on this machine's cores.
        cpus_per_gpu: cores of a node for each of them: the model's threads, the rest decoders.
        nodes: of the same kind.
        decode_rate: clips per second of one decoder process; None is measured here.
        model_rate: clips per second of one model; None is measured here.
        start_s: seconds until a worker is ready; None is measured, or else nothing.
        commit_s: seconds per shard in which a store lets its writer wait.
        store_bytes_s: what the store takes from all together.
        worker_lifetime_s: mean time until a worker is lost.
    """

    gpus: int = 0
    cpus_per_gpu: int = 12
    nodes: int = 1
    decode_rate: float | None = None
    model_rate: float | None = None
    start_s: float | None = None
    commit_s: float | None = None
    store_bytes_s: float = math.inf
    worker_lifetime_s: float = math.inf

    def __post_init__(self) -> None:
        require_at_least("gpus", self.gpus, 0)
        require_at_least("nodes", self.nodes, 1)
        for name in ("decode_rate", "model_rate"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ConfigError(f"{name} must be clips per second above 0, got {value!r}")
        for name in ("start_s", "commit_s"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise ConfigError(f"{name} must be seconds, 0 or more, got {value!r}")
        if not self.gpus and self.nodes > 1:
            raise ConfigError("--nodes needs --gpus: without GPUs the run is on this machine")


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A build's time and size before it is begun."""

    num_clips: int
    shard_size: int
    setup: WorkerSetup
    cluster: Cluster
    rates: Rates
    measured: Measured | None
    """None where all rates were given."""
    forecast: Forecast
    decoders_wanted: int | None
    """Decoder processes that keep one model busy; None where none do, as it waits for commits."""
    stored: dict[str, float]
    """Bytes per clip in the store, by kind of file."""

    @property
    def decode_rate(self) -> float:
        """Clips per second of one decoder process."""
        return self.setup.num_views / self.rates.mean_decode_s

    @property
    def model_rate(self) -> float:
        """Clips per second of one model."""
        return 1 / self.rates.model_s

    @property
    def store_bytes(self) -> float:
        """Of the whole store."""
        return self.num_clips * sum(self.stored.values())


def estimate(
    asked: OracleConfig,
    run: RunConfig,
    place: Place,
    *,
    num_clips: int | None = None,
    seconds: float = 30.0,
) -> Estimate:
    """Say how long a build will take, and how large its store will be.

    Args:
        asked: the build, as `pipeline.oracle.build.build` takes it.
        run: its settings; `data_root` may be empty where nothing has to be read or measured.
        place: where it is to run. With GPUs it decides the number of workers and of decoders.
        num_clips: of the plan; None reads the dataset.
        seconds: of measuring.

    Raises:
        ConfigError: settings that cannot go together, or that leave nothing to start from.
        LiteError: see `prepare` and `measure`.
    """
    run, cluster = _settle(run, place)
    views = asked.num_views or 1
    measured = None
    given = place.decode_rate is not None and place.model_rate is not None
    if run.data_root:
        prepared = prepare(asked, run)
        views, grid, hidden_size = prepared.config.num_views, prepared.grid, prepared.hidden_size
        kept, num_rows = prepared.config.embeddings_per_clip, prepared.plan.num_rows
        if not given:
            measured = measure(prepared, run, seconds)
    elif not given or num_clips is None:
        raise ConfigError(
            "--data-root is needed to count clips and to measure rates; without it give --clips, "
            "--decode-rate and --model-rate"
        )
    else:
        backbone = load_backbone(asked.backbone, asked.revision, device="meta")
        grid, hidden_size = backbone.grid, backbone.hidden_size
        kept, num_rows = num_embeddings(grid, asked.embeddings_per_clip), num_clips
    stored = _stored(asked, grid, kept, hidden_size) | (measured.stored if measured else {})
    setup = WorkerSetup(
        decoders=run.decode_workers,
        batch_size=run.batch_size,
        num_views=views,
        on_gpu=place.gpus > 0,
        threads=run.threads_per_worker,
        clip_bytes=sum(stored.values()),
    )
    rates = _rates(place, measured, views, uses_ray=run.workers > 0)
    total = num_rows if num_clips is None else num_clips
    return Estimate(
        num_clips=total,
        shard_size=asked.shard_size,
        setup=setup,
        cluster=cluster,
        rates=rates,
        measured=measured,
        forecast=simulate(total, asked.shard_size, setup, cluster, rates),
        decoders_wanted=find_decoders(asked.shard_size, setup, rates),
        stored=stored,
    )


def find_decoders(shard_size: int, setup: WorkerSetup, rates: Rates) -> int | None:
    """How many decoder processes one model wants, each on a core of its own.

    More than its rate over theirs: at the end of a shard they have decoded ahead and wait.

    Args:
        shard_size: clips per shard.
        setup: of the worker, whatever its number of decoders.
        rates: of its steps.

    Returns:
        The fewest with which it computes `BUSY` of the time; None where more would not help.
    """
    if not rates.model_s:
        return None

    def is_busy(decoders: int) -> bool:
        found = simulate(
            _SHARDS_TRIED * shard_size,
            shard_size,
            replace(setup, decoders=decoders),
            Cluster(workers=1),
            rates,
        )
        return found.steady_clips_per_s * rates.model_s >= BUSY

    few = math.ceil(BUSY * rates.mean_decode_s / setup.num_views / rates.model_s - 1e-9) or 1
    many = 4 * few
    if not is_busy(many):
        return None
    return bisect.bisect_left(range(few, many), True, key=is_busy) + few


def _settle(run: RunConfig, place: Place) -> tuple[RunConfig, Cluster]:
    """Workers and decoders, and the cluster they are on."""
    own: dict[str, Any] = {
        "store_bytes_s": place.store_bytes_s,
        "worker_lifetime_s": place.worker_lifetime_s,
    }
    if not place.gpus:
        cores = float(os.cpu_count() or 1)
        return run, Cluster(workers=run.workers, cores_per_node=cores, **own)
    if run.workers:
        raise ConfigError("--workers is for a machine without GPUs; --gpus has one for each")
    decoders = place.cpus_per_gpu - run.threads_per_worker
    if decoders < 1:
        raise ConfigError(
            f"--cpus-per-gpu {place.cpus_per_gpu} leaves no core to decode beside --threads "
            f"{run.threads_per_worker}"
        )
    if place.model_rate is None:
        _require_gpu()
    workers = place.gpus * place.nodes
    run = replace(run, workers=workers, gpus_per_worker=1.0, decode_workers=decoders)
    return run, Cluster(workers=workers, nodes=place.nodes, **own)


def _require_gpu() -> None:
    import torch

    if not torch.cuda.is_available():
        raise ConfigError(
            "--gpus asks for the time on GPUs, and PyTorch finds none here to measure: give "
            "--model-rate, in clips per second of one GPU"
        )


def _rates(place: Place, measured: Measured | None, views: int, *, uses_ray: bool) -> Rates:
    """What is given, else what was measured, else what is usual."""
    rates = measured.rates if measured else Rates(decode_s=(0.0,), model_s=0.0, write_s=WRITE_S)
    start_s = rates.start_s + RAY_START_S * uses_ray if measured else 0.0
    rates = replace(rates, start_s=start_s, driver_s=DRIVER_S)
    if place.decode_rate is not None:
        rates = replace(rates, decode_s=(views / place.decode_rate,))
    if place.model_rate is not None:
        rates = replace(rates, model_s=1 / place.model_rate)
    if place.start_s is not None:
        rates = replace(rates, start_s=place.start_s)
    if place.commit_s is not None:
        rates = replace(rates, commit_s=place.commit_s)
    return rates


def _stored(
    asked: OracleConfig, grid: TokenGrid, kept: int | None, hidden_size: int
) -> dict[str, float]:
    """Bytes per clip by the layout: arrays as if nothing of them could be compressed."""
    further = [name.suffix for name in asked.oracles[1:]]
    specs = array_specs(1, grid, kept, hidden_size, asked.shard_size, further)
    arrays = {spec.name: 2.0 * math.prod(spec.shape) for spec in specs}
    return arrays | {TOKENS: TOKEN_BYTES * grid.num_tokens * len(asked.oracles)}
