"""`lite-pipeline build-oracle`: videos in, an oracle store out."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.config import DECODERS, PRECISIONS, TARGETS, OracleConfig, RunConfig
from pipeline.errors import ClipStatus, ConfigError

if TYPE_CHECKING:
    from pipeline.build import BuildResult

WHAT = "What is built (part of the store's identity)"
HOW = "How it runs (may change from run to run)"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("build-oracle")(build_oracle)


def build_oracle(
    data_root: Annotated[
        str,
        typer.Option(help="Folder of the dataset's annotations and videos.", rich_help_panel=WHAT),
    ],
    store: Annotated[
        str, typer.Option(help="Where the store is or shall be: a folder, or s3://bucket/path.")
    ],
    dataset: Annotated[
        str,
        typer.Option(help="Name of a dataset, or a YAML; see `datasets`.", rich_help_panel=WHAT),
    ] = "synthetic",
    backbone: Annotated[
        str,
        typer.Option(
            help="Checkpoint folder, hub id, or `synthetic` (shipped).", rich_help_panel=WHAT
        ),
    ] = "synthetic",
    revision: Annotated[
        str | None, typer.Option(help="Commit or tag of a hub id.", rich_help_panel=WHAT)
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Split to build; by default train.", rich_help_panel=WHAT)
    ] = None,
    views: Annotated[
        str,
        typer.Option(help="Temporal segments x spatial crops per video.", rich_help_panel=WHAT),
    ] = "1x1",
    sampling: Annotated[
        str | None,
        typer.Option(
            help="`uniform` or `stride:N`; by default the dataset's.", rich_help_panel=WHAT
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(help="Take an even sample of this many videos.", rich_help_panel=WHAT),
    ] = None,
    decoder: Annotated[
        str, typer.Option(help=f"One of {', '.join(DECODERS)}.", rich_help_panel=WHAT)
    ] = OracleConfig.decoder,
    method: Annotated[
        str,
        typer.Option(help="Class-activation method: gradcam, hirescam ...", rich_help_panel=WHAT),
    ] = OracleConfig.method,
    layer: Annotated[
        str,
        typer.Option(
            help="`embeddings` or `blocks.N.(mlp|output|norm1)`; N may count from the end.",
            rich_help_panel=WHAT,
        ),
    ] = OracleConfig.layer,
    target: Annotated[
        str, typer.Option(help=f"Class to explain: {' or '.join(TARGETS)}.", rich_help_panel=WHAT)
    ] = OracleConfig.target,
    precision: Annotated[
        str, typer.Option(help=f"{' or '.join(PRECISIONS)}.", rich_help_panel=WHAT)
    ] = OracleConfig.precision,
    tokens_per_clip: Annotated[
        str | None,
        typer.Option(
            help="Embeddings kept per clip for the selector: a number, `all`, or 0. Default: 128.",
            rich_help_panel=WHAT,
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(help="Seed of the kept embeddings.", rich_help_panel=WHAT)
    ] = OracleConfig.seed,
    shard_size: Annotated[
        int,
        typer.Option(help="Clips per shard, the unit of work and commit.", rich_help_panel=WHAT),
    ] = OracleConfig.shard_size,
    workers: Annotated[
        int, typer.Option(help="Ray workers; 0 runs in this process.", rich_help_panel=HOW)
    ] = RunConfig.workers,
    gpus_per_worker: Annotated[
        float, typer.Option(help="GPUs, or a share of one, per Ray worker.", rich_help_panel=HOW)
    ] = RunConfig.gpus_per_worker,
    batch_size: Annotated[
        int, typer.Option(help="Clips per forward pass.", rich_help_panel=HOW)
    ] = RunConfig.batch_size,
    decode_workers: Annotated[
        int, typer.Option(help="Decoder processes per worker.", rich_help_panel=HOW)
    ] = RunConfig.decode_workers,
    threads: Annotated[
        int, typer.Option(help="Threads of the model on a CPU, per worker.", rich_help_panel=HOW)
    ] = RunConfig.threads_per_worker,
    device: Annotated[
        str, typer.Option(help="cpu, cuda, or auto.", rich_help_panel=HOW)
    ] = RunConfig.device,
    address: Annotated[
        str | None,
        typer.Option(help="Ray cluster: auto, or host:port. Default: local.", rich_help_panel=HOW),
    ] = None,
    retry_failed: Annotated[
        str | None,
        typer.Option(
            help="Do failed clips again: `all`, or statuses such as decode_timeout,missing_file.",
            rich_help_panel=HOW,
        ),
    ] = None,
    decode_timeout: Annotated[
        float, typer.Option(help="Seconds one video may take to decode.", rich_help_panel=HOW)
    ] = RunConfig.decode_timeout_s,
    shard_timeout: Annotated[
        float | None,
        typer.Option(
            help="Seconds one shard may take before its worker is killed.", rich_help_panel=HOW
        ),
    ] = None,
    max_attempts: Annotated[
        int, typer.Option(help="Tries of a shard before it is given up.", rich_help_panel=HOW)
    ] = RunConfig.max_attempts,
) -> None:
    """Score every token of every clip and keep the result in a store.

    Interrupt it at any time: the same command goes on where it stopped. A video that cannot be
    read never stops a run; `lite-pipeline failures STORE` lists it.
    """
    kept = _tokens(tokens_per_clip)
    retry = _statuses(retry_failed)
    run_config = RunConfig(
        data_root=data_root,
        workers=workers,
        gpus_per_worker=gpus_per_worker,
        decode_workers=decode_workers,
        threads_per_worker=threads,
        batch_size=batch_size,
        device=device,
        ray_address=address,
        decode_timeout_s=decode_timeout,
        shard_timeout_s=shard_timeout,
        max_attempts=max_attempts,
    )
    if address is not None and workers == 0:
        raise ConfigError("--address needs Ray workers: add --workers N")

    from pipeline.build import BuildRequest, build
    from pipeline.views import parse_views

    request = BuildRequest(
        dataset=dataset,
        data_root=data_root,
        backbone=backbone,
        revision=revision,
        split=split,
        views=parse_views(views),
        sampling=sampling,
        limit=limit,
        decoder=decoder,
        method=method,
        layer=layer,
        target=target,
        precision=precision,
        tokens_per_clip=kept,
        seed=seed,
        shard_size=shard_size,
    )
    result = build(request, store, run_config, retry=retry, progress_stream=sys.stderr)
    _echo_result(result)
    if not result.complete:
        raise typer.Exit(1)


def _tokens(text: str | None) -> int | None:
    if text is None or text == "all":
        return None if text is None else -1
    if not text.isdigit():
        raise ConfigError(f"--tokens-per-clip takes a number or `all`, got {text!r}")
    return int(text)


def _statuses(text: str | None) -> tuple[str, ...] | None:
    failures = tuple(status.value for status in ClipStatus if status != ClipStatus.OK)
    if text is None or text == "all":
        return None if text is None else failures
    asked = tuple(text.split(","))
    for status in asked:
        if status not in failures:
            raise ConfigError(
                f"--retry-failed takes `all` or any of {', '.join(failures)}; got {status!r}"
            )
    return asked


def _echo_result(result: BuildResult) -> None:
    width = max(len(status) for status in result.summary)
    for status, count in result.summary.items():
        if count or status == ClipStatus.OK:
            typer.echo(f"{status:<{width}}  {count}")
    for loss in result.given_up:
        typer.echo(f"shard {loss.shard} given up after {loss.attempt} attempts: {loss.reason}")
    if not result.complete:
        typer.echo("not complete: the same command tries again what is missing")
        return
    failed = sum(result.summary.values()) - result.summary[ClipStatus.OK]
    typer.echo(f"complete: {result.store}")
    if failed:
        typer.echo(f"  lite-pipeline failures {result.store}    lists the {failed} failed clips")
    typer.echo(f"  lite-pipeline train-selector --store {result.store}")
