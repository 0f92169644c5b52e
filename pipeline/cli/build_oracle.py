"""`lite-pipeline build-oracle`: videos in, an oracle store out."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli import options, output
from pipeline.cli.options import HOW, WHAT
from pipeline.cli.status import echo_accuracy, echo_padded
from pipeline.cli.table import Column, echo_table
from pipeline.config import DEFAULT_LAYER, TARGETS, OracleConfig, OracleName, RunConfig
from pipeline.errors import ClipStatus, ConfigError

if TYPE_CHECKING:
    from pipeline.oracle.build import BuildResult


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("build-oracle")(options.with_run_options(build_oracle))


def build_oracle(
    data_root: Annotated[
        str,
        typer.Option(help="Folder of the dataset's annotations and videos.", rich_help_panel=WHAT),
    ],
    store: Annotated[
        str, typer.Option(help="Where the store is or shall be: a folder, or s3://bucket/path.")
    ],
    dataset: options.Dataset = "synthetic",
    backbone: options.BackboneName = "synthetic",
    revision: options.Revision = None,
    accept_classes: options.AcceptClasses = False,
    split: Annotated[
        str | None, typer.Option(help="Split to build; by default train.", rich_help_panel=WHAT)
    ] = None,
    views: Annotated[
        str | None,
        typer.Option(
            help="Temporal segments x spatial crops per video. Default: the dataset's "
            "train_views, 1x1 for all that are shipped.",
            rich_help_panel=WHAT,
        ),
    ] = None,
    sampling: options.SamplingRule = None,
    limit: options.Limit = None,
    decoder: options.Decoder = OracleConfig.decoder,
    oracle: Annotated[
        list[str] | None,
        typer.Option(
            help="METHOD, METHOD@LAYER or METHOD@LAYER:TARGET, such as "
            "gradcam@blocks.-1.output:predicted; repeat it for several in one pass.",
            rich_help_panel=WHAT,
        ),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            help="Class-activation method (gradcam, hirescam ...), or occlusion. Default: "
            f"{OracleConfig.method}. With --layer and --target the long form of one --oracle.",
            rich_help_panel=WHAT,
        ),
    ] = None,
    layer: Annotated[
        str | None,
        typer.Option(
            help="`embeddings` or `blocks.N.(mlp|output|norm1)`; N may count from the end. "
            f"Default: {DEFAULT_LAYER}, and for occlusion embeddings.",
            rich_help_panel=WHAT,
        ),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            help=f"Class to explain: {' or '.join(TARGETS)}. Default: {OracleConfig.target}.",
            rich_help_panel=WHAT,
        ),
    ] = None,
    precision: options.Precision = OracleConfig.precision,
    embeddings_per_clip: Annotated[
        str | None,
        typer.Option(
            help="Embeddings kept per clip for the selector: a number, `all`, or 0. Default: 128.",
            rich_help_panel=WHAT,
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(help="Seed of the kept embeddings.", rich_help_panel=WHAT)
    ] = OracleConfig.seed,
    shard_size: options.ShardSize = OracleConfig.shard_size,
    *,
    run: dict[str, Any],
    retry_failed: Annotated[
        str | None,
        typer.Option(
            help="Do failed clips again: `all`, or statuses such as decode_timeout,missing_file.",
            rich_help_panel=HOW,
        ),
    ] = None,
) -> None:
    """Score every token of every clip and keep the result in a store.

    Interrupt it at any time: the same command goes on where it stopped. A video that cannot be
    read never stops a run; `lite-pipeline failures` lists it.
    """
    first, *further = _oracles(oracle, method, layer, target)
    kept = parse_kept(embeddings_per_clip)
    retry = _statuses(retry_failed)
    run_config = RunConfig(data_root=data_root, accept_classes=accept_classes, **run)
    options.require_writable_folder(store)

    from pipeline.oracle.build import build

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
        seed=seed,
        shard_size=shard_size,
    )
    result = build(asked, store, run_config, retry=retry, progress_stream=output.progress_stream())
    _echo_result(result, store)
    if not result.complete:
        raise typer.Exit(1)


def _oracles(
    names: list[str] | None, method: str | None, layer: str | None, target: str | None
) -> list[OracleName]:
    """The oracles asked for by --oracle, or the one by the other three."""
    parts = {"--method": method, "--layer": layer, "--target": target}
    given = [option for option, value in parts.items() if value is not None]
    if names and given:
        raise ConfigError(
            f"--oracle says method, layer and target in one word, and {', '.join(given)} says it "
            "again: use one or the other"
        )
    if names:
        return [OracleName.parse(name) for name in names]
    return [OracleName(method or OracleConfig.method, layer or "", target or OracleConfig.target)]


def parse_kept(text: str | None) -> int | None:
    """What `--embeddings-per-clip` says: -1 for all, None where it is left open."""
    if text is None or text == "all":
        return None if text is None else -1
    if not text.isdecimal():
        raise ConfigError(f"--embeddings-per-clip takes a number or `all`, got {text!r}")
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


def _echo_result(result: BuildResult, store: str) -> None:
    counts = [
        (status, str(count))
        for status, count in result.summary.items()
        if count or status == ClipStatus.OK
    ]
    echo_table([Column(""), Column("", right=True)], counts)
    echo_padded(result.num_padded)
    echo_accuracy(result.accuracy, result.label_names)
    for loss in result.given_up:
        output.echo(f"shard {loss.shard} given up after {loss.attempt} attempts: {loss.reason}")
    if not result.complete:
        output.echo("not complete: the same command tries again what is missing")
        return
    failed = sum(result.summary.values()) - result.summary[ClipStatus.OK]
    output.echo(f"complete: {store}; go on with")
    typed = shlex.quote(store)
    if failed:
        output.echo(f"  lite-pipeline failures --store {typed}    # the {failed} failed clips")
    output.echo(f"  lite-pipeline train-selector --store {typed} --out SELECTOR")
