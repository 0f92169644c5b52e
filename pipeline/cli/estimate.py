"""`lite-pipeline estimate`: how long a build will take, and how large its store will be."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli import options, output
from pipeline.cli.build_oracle import parse_kept
from pipeline.cli.options import HOW, WHAT
from pipeline.cli.table import Column, echo_table
from pipeline.config import OracleConfig, OracleName, RunConfig

if TYPE_CHECKING:
    from pipeline.estimate.estimate import Estimate

WHERE = "Where it is to run"
GIVEN = "What is known instead of measured"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("estimate")(estimate)


def estimate(
    dataset: options.Dataset = "synthetic",
    data_root: Annotated[
        str,
        typer.Option(
            help="Folder of the dataset, to count its clips and to measure on a sample of them.",
            rich_help_panel=WHAT,
        ),
    ] = "",
    backbone: options.BackboneName = "synthetic",
    revision: options.Revision = None,
    accept_classes: options.AcceptClasses = False,
    split: Annotated[
        str | None, typer.Option(help="Split; by default train.", rich_help_panel=WHAT)
    ] = None,
    views: Annotated[
        str | None,
        typer.Option(help="Temporal segments x spatial crops per video.", rich_help_panel=WHAT),
    ] = None,
    sampling: options.SamplingRule = None,
    limit: options.Limit = None,
    decoder: options.Decoder = OracleConfig.decoder,
    oracle: Annotated[
        list[str] | None,
        typer.Option(help="As of build-oracle; repeat it for several.", rich_help_panel=WHAT),
    ] = None,
    precision: options.Precision = OracleConfig.precision,
    embeddings_per_clip: Annotated[
        str | None,
        typer.Option(help="As of build-oracle: a number, `all`, or 0.", rich_help_panel=WHAT),
    ] = None,
    shard_size: options.ShardSize = OracleConfig.shard_size,
    batch_size: Annotated[
        int, typer.Option(help="Clips per forward pass.", rich_help_panel=HOW)
    ] = RunConfig.batch_size,
    threads: Annotated[
        int, typer.Option(help="CPU threads of the model, per worker.", rich_help_panel=HOW)
    ] = RunConfig.threads_per_worker,
    workers: Annotated[
        int, typer.Option(help="Ray workers on this machine, without GPUs.", rich_help_panel=HOW)
    ] = RunConfig.workers,
    decode_workers: Annotated[
        int, typer.Option(help="Decoder processes per worker, without GPUs.", rich_help_panel=HOW)
    ] = RunConfig.decode_workers,
    gpus: Annotated[
        int,
        typer.Option(help="GPUs of a node, a worker each; 0: this CPU.", rich_help_panel=WHERE),
    ] = 0,
    cpus_per_gpu: Annotated[
        int,
        typer.Option(
            help="Cores of a node for each GPU: --threads for the model, the rest decode.",
            rich_help_panel=WHERE,
        ),
    ] = 12,
    nodes: Annotated[int, typer.Option(help="Such nodes.", rich_help_panel=WHERE)] = 1,
    worker_hours: Annotated[
        float | None,
        typer.Option(help="Hours after which a worker is lost, on average.", rich_help_panel=WHERE),
    ] = None,
    store_mb_s: Annotated[
        float | None,
        typer.Option(
            help="MB per second that the store takes from all workers.", rich_help_panel=WHERE
        ),
    ] = None,
    decode_rate: Annotated[
        float | None,
        typer.Option(help="Clips per second of one decoder process.", rich_help_panel=GIVEN),
    ] = None,
    model_rate: Annotated[
        float | None, typer.Option(help="Clips per second of one model.", rich_help_panel=GIVEN)
    ] = None,
    start_seconds: Annotated[
        float | None,
        typer.Option(help="Seconds until a worker is ready.", rich_help_panel=GIVEN),
    ] = None,
    commit_seconds: Annotated[
        float | None,
        typer.Option(
            help="Seconds per shard of waiting for the store's answers.", rich_help_panel=GIVEN
        ),
    ] = None,
    clips: Annotated[
        int | None, typer.Option(help="Clips of the plan.", rich_help_panel=GIVEN)
    ] = None,
    seconds: Annotated[float, typer.Option(help="Time to measure for, about.")] = 30.0,
    as_json: options.AsJson = False,
) -> None:
    """Say how long a build will take, what it is bound by, and how large the store will be.

    Decoding, model and commits are measured here on a sample, or given, and the run is simulated
    with its decoders, batches, shards and workers.
    """
    run = RunConfig(
        data_root=data_root,
        accept_classes=accept_classes,
        workers=workers,
        decode_workers=decode_workers,
        threads_per_worker=threads,
        batch_size=batch_size,
    )
    first, *further = map(OracleName.parse, oracle or [OracleConfig.method])
    kept = parse_kept(embeddings_per_clip)

    from pipeline.estimate.estimate import Place, estimate

    asked = OracleConfig(
        dataset=dataset,
        backbone=backbone,
        revision=revision,
        **options.clip_fields(split, views, sampling),
        limit=limit,
        decoder=decoder,
        method=first.method,
        layer=first.layer,
        target=first.target,
        further_oracles=tuple(map(str, further)),
        precision=precision,
        embeddings_per_clip=kept,
        shard_size=shard_size,
    )
    place = Place(
        gpus=gpus,
        cpus_per_gpu=cpus_per_gpu,
        nodes=nodes,
        decode_rate=decode_rate,
        model_rate=model_rate,
        start_s=start_seconds,
        commit_s=commit_seconds,
        store_bytes_s=math.inf if store_mb_s is None else 1e6 * store_mb_s,
        worker_lifetime_s=math.inf if worker_hours is None else 3600 * worker_hours,
    )
    found = estimate(asked, run, place, num_clips=clips, seconds=seconds)
    if as_json:
        output.echo_json(_facts(found))
    else:
        _echo(found)


def _facts(found: Estimate) -> dict[str, Any]:
    forecast = found.forecast
    return {
        "clips": found.num_clips,
        "shards": -(-found.num_clips // found.shard_size),
        "workers": found.cluster.workers,
        "decoders_per_worker": found.setup.decoders,
        "measured": None
        if found.measured is None
        else {
            "videos": found.measured.num_videos,
            "failed": found.measured.num_failed,
            "clips": found.measured.num_clips,
        },
        "rates": {
            "decode": found.decode_rate,
            "model": found.model_rate,
            "write_s_per_clip": found.rates.write_s,
            "commit_s_per_shard": found.rates.commit_s,
            "start_s": found.rates.start_s,
            "driver_s_per_shard": found.rates.driver_s,
        },
        "seconds": forecast.seconds,
        "clips_per_s": forecast.clips_per_s,
        "steady_clips_per_s": forecast.steady_clips_per_s,
        "bound_by": forecast.bound_by,
        "busy": forecast.busy,
        "lost_attempts": forecast.num_lost,
        "decoders_wanted": found.decoders_wanted,
        "store_bytes": found.store_bytes,
        "store_bytes_per_clip": found.stored,
    }


def _echo(found: Estimate) -> None:
    forecast, setup, cluster = found.forecast, found.setup, found.cluster
    shards = -(-found.num_clips // found.shard_size)
    kind = "GPU" if setup.on_gpu else "Ray worker"
    where = f"{cluster.workers} {kind}(s)" if cluster.workers else "this process"
    if cluster.nodes > 1:
        where += f" on {cluster.nodes} nodes"
    busy = ", ".join(f"{part} {share:.0%}" for part, share in forecast.busy.items())
    how = "given"
    if found.measured is not None:
        how = f"{found.measured.num_videos} videos and {found.measured.num_clips} clips here"
        if found.measured.num_failed:
            how += f"; {found.measured.num_failed} of the videos could not be decoded"
    rows = [
        ("clips", f"{found.num_clips} in {shards} shards"),
        ("runs on", f"{where}, {setup.decoders} decoder(s) each"),
        ("one decoder", f"{found.decode_rate:.4g} clips/s"),
        ("one model", f"{found.model_rate:.4g} clips/s"),
        ("rates from", how),
        ("takes", _duration(forecast.seconds)),
        ("speed", f"{forecast.clips_per_s:.4g} clips/s"),
        ("bound by", f"{forecast.bound_by} ({busy} of the time)"),
        ("decoders", _wanted(found.decoders_wanted)),
        ("store", f"about {_size(found.store_bytes)}"),
    ]
    if forecast.num_lost:
        rows.append(("lost", f"{forecast.num_lost} attempts at shards, with their workers"))
    echo_table([Column(""), Column("")], rows)


def _wanted(decoders: int | None) -> str:
    if decoders is None:
        return "no number keeps a model busy: it waits for commits (larger shards help)"
    return f"{decoders} keep one model busy"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _size(size: float) -> str:
    return f"{size / 1e9:.3g} GB" if size >= 1e9 else f"{size / 1e6:.3g} MB"
