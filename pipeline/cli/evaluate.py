"""`lite-pipeline evaluate`: every way of choosing tokens, at every keep ratio, on real videos."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.config import DECODERS, PRECISIONS, OracleConfig, RunConfig
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from selector.evaluation.folder import Evaluation

WHAT = "What is evaluated (part of the results' identity)"
HOW = "How it runs (may change from run to run)"
SHOWN = "What is shown"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("evaluate")(evaluate)


def evaluate(
    out: Annotated[str, typer.Option(help="Where the results are or shall be: folder or URL.")],
    data_root: Annotated[
        str | None,
        typer.Option(help="Folder of the dataset's annotations and videos.", rich_help_panel=WHAT),
    ] = None,
    dataset: Annotated[
        str,
        typer.Option(help="Name of a dataset, or a YAML; see `datasets`.", rich_help_panel=WHAT),
    ] = "synthetic",
    split: Annotated[
        str | None,
        typer.Option(help="Split; by default the one papers report on.", rich_help_panel=WHAT),
    ] = None,
    backbone: Annotated[
        str,
        typer.Option(
            help="Checkpoint folder, hub id, or `synthetic` (shipped).", rich_help_panel=WHAT
        ),
    ] = "synthetic",
    revision: Annotated[
        str | None, typer.Option(help="Commit or tag of a hub id.", rich_help_panel=WHAT)
    ] = None,
    methods: Annotated[
        str | None,
        typer.Option(
            help="Rankings, with commas; an oracle may name its layer and method, as in "
            "oracle[embeddings,hirescam]. Default: random,uniform,oracle,oracle-predicted, and "
            "lite with --selector.",
            rich_help_panel=WHAT,
        ),
    ] = None,
    selector: Annotated[
        str | None,
        typer.Option(help="Folder of the trained selector, for `lite`.", rich_help_panel=WHAT),
    ] = None,
    keep_ratios: Annotated[
        str,
        typer.Option(
            help="Shares of the tokens kept, in (0, 1]; 1 is always done.", rich_help_panel=WHAT
        ),
    ] = "1,.9,.7,.5,.3,.2,.1",
    views: Annotated[
        str,
        typer.Option(
            help="Temporal segments x spatial crops per video; their mean score decides.",
            rich_help_panel=WHAT,
        ),
    ] = "1x1",
    seeds: Annotated[
        int, typer.Option(help="Seeds of the random baseline.", rich_help_panel=WHAT)
    ] = 3,
    limit: Annotated[
        int | None,
        typer.Option(help="Take an even sample of this many videos.", rich_help_panel=WHAT),
    ] = None,
    layer: Annotated[
        str,
        typer.Option(help="Layer of an oracle that names none.", rich_help_panel=WHAT),
    ] = OracleConfig.layer,
    method: Annotated[
        str,
        typer.Option(
            help="Class-activation method of an oracle that names none.", rich_help_panel=WHAT
        ),
    ] = OracleConfig.method,
    sampling: Annotated[
        str | None,
        typer.Option(
            help="`uniform` or `stride:N`; by default the dataset's.", rich_help_panel=WHAT
        ),
    ] = None,
    decoder: Annotated[
        str, typer.Option(help=f"One of {', '.join(DECODERS)}.", rich_help_panel=WHAT)
    ] = OracleConfig.decoder,
    precision: Annotated[
        str, typer.Option(help=f"{' or '.join(PRECISIONS)}.", rich_help_panel=WHAT)
    ] = OracleConfig.precision,
    shard_size: Annotated[
        int,
        typer.Option(help="Clips per shard, the unit of work and commit.", rich_help_panel=WHAT),
    ] = 64,
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
    table_only: Annotated[
        bool,
        typer.Option(
            "--table-only", help="Compute nothing: show what is there.", rich_help_panel=SHOWN
        ),
    ] = False,
    class_ratio: Annotated[
        float,
        typer.Option(help="Keep ratio of the per-class analysis.", rich_help_panel=SHOWN),
    ] = 0.5,
    max_loss: Annotated[
        float,
        typer.Option(
            help="Points of top-1 that LITE++ may lose where its thresholds are picked.",
            rich_help_panel=SHOWN,
        ),
    ] = 0.6,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print everything as JSON.", rich_help_panel=SHOWN)
    ] = False,
) -> None:
    """Measure accuracy against cost for every method and keep ratio.

    Every clip is decoded and embedded once for all methods. Interrupt it at any time: the same
    command goes on where it stopped, and prints the table once all is done.
    """
    if table_only:
        from selector.evaluation import folder

        _show(folder.Evaluation(out), class_ratio, max_loss, as_json)
        return
    if data_root is None:
        raise ConfigError("evaluating needs the videos: --data-root DIR (or --table-only)")
    if address is not None and workers == 0:
        raise ConfigError("--address needs Ray workers: add --workers N")
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

    from pipeline.views import parse_views
    from selector.evaluation.config import parse_keep_ratios
    from selector.evaluation.run import EvalRequest
    from selector.evaluation.run import evaluate as run_evaluation
    from selector.rankers import parse_specs

    if methods is None:
        methods = "random,uniform,oracle,oracle-predicted" + (",lite" if selector else "")
    request = EvalRequest(
        dataset=dataset,
        data_root=data_root,
        backbone=backbone,
        methods=parse_specs(methods, layer, method),
        revision=revision,
        split=split,
        views=parse_views(views),
        sampling=sampling,
        limit=limit,
        decoder=decoder,
        selector=selector,
        keep_ratios=parse_keep_ratios(keep_ratios),
        num_seeds=seeds,
        precision=precision,
        shard_size=shard_size,
    )
    result = run_evaluation(request, out, run_config, progress_stream=sys.stderr)
    for loss in result.given_up:
        typer.echo(
            f"shard {loss.shard} given up after {loss.attempt} attempts: {loss.reason}", err=True
        )
    if result.given_up:
        typer.echo("not complete: the same command tries again what is missing", err=True)
    if result.evaluation.shards():
        _show(result.evaluation, class_ratio, max_loss, as_json)
    if result.given_up:
        raise typer.Exit(1)


def _show(evaluation: Evaluation, class_ratio: float, max_loss: float, as_json: bool) -> None:
    from selector.evaluation.summary import summarise
    from selector.evaluation.text import format_summary

    summary = summarise(evaluation, class_ratio=class_ratio, max_loss=max_loss / 100)
    typer.echo(json.dumps(summary.to_dict()) if as_json else format_summary(summary))
