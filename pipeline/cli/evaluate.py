"""`lite-pipeline evaluate`: every way of choosing tokens, at every keep ratio, on real videos."""

from __future__ import annotations

import functools
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli import options, output
from pipeline.cli.options import WHAT
from pipeline.config import OracleConfig, RunConfig
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from selector.evaluation.files import Evaluation

SHOWN = "What is shown"
KEEP_RATIOS = "1,.9,.7,.5,.3,.2,.1"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("evaluate")(options.with_run_options(evaluate))


def evaluate(
    out: Annotated[str, typer.Option(help="Where the results are or shall be: folder or URL.")],
    data_root: Annotated[
        str | None,
        typer.Option(help="Folder of the dataset's annotations and videos.", rich_help_panel=WHAT),
    ] = None,
    dataset: options.Dataset = "synthetic",
    split: Annotated[
        str | None,
        typer.Option(help="Split; by default the one papers report on.", rich_help_panel=WHAT),
    ] = None,
    backbone: options.BackboneName = "synthetic",
    revision: options.Revision = None,
    accept_classes: options.AcceptClasses = False,
    methods: Annotated[
        str | None,
        typer.Option(
            help="With commas; `lite-pipeline methods` lists them. An oracle may name its layer "
            "and method, as in oracle\\[embeddings,hirescam]; lite+tome is a chain. Default: "
            "random,uniform,oracle,oracle-predicted, and lite and lite-spread for every "
            "--selector.",
            rich_help_panel=WHAT,
        ),
    ] = None,
    selector: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NAME=]DIR",
            help="Folder of a trained selector, for `lite` and `lite-spread`, or NAME=DIR, for "
            "`lite\\[NAME]`. Repeatable.",
            rich_help_panel=WHAT,
        ),
    ] = None,
    keep_ratios: Annotated[
        str | None,
        typer.Option(
            help="Budgets, as the shares of the tokens that cost as much, in (0, 1]; 1 is always "
            "done. Default: 1,.9,.7,.5,.3,.2,.1, unless --gflops says others.",
            rich_help_panel=WHAT,
        ),
    ] = None,
    gflops: Annotated[
        str | None,
        typer.Option(
            help="Budgets as GFLOPs of one view, such as 80,40: every method gets its dearest "
            "schedule within each.",
            rich_help_panel=WHAT,
        ),
    ] = None,
    views: Annotated[
        str | None,
        typer.Option(
            help="Temporal segments x spatial crops per video; their mean score decides. Default: "
            "those of the dataset's published evaluation (see `datasets`), as 2x3 for ssv2.",
            rich_help_panel=WHAT,
        ),
    ] = None,
    seeds: Annotated[
        int, typer.Option(help="Seeds of the random baseline.", rich_help_panel=WHAT)
    ] = 3,
    limit: options.Limit = None,
    layer: Annotated[
        str | None,
        typer.Option(
            help="Layer of an oracle that names none. Default: build-oracle's for this checkpoint.",
            rich_help_panel=WHAT,
        ),
    ] = None,
    method: Annotated[
        str,
        typer.Option(
            help="Class-activation method of an oracle that names none.", rich_help_panel=WHAT
        ),
    ] = OracleConfig.method,
    sampling: options.SamplingRule = None,
    decoder: options.Decoder = OracleConfig.decoder,
    precision: options.Precision = OracleConfig.precision,
    shard_size: options.ShardSize = 64,
    *,
    run: dict[str, Any],
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
        float | None,
        typer.Option(
            help="Adaptive budgets: points of top-1 that they may lose to their base where they "
            "are picked. Default: 0.6, unless a share is given.",
            rich_help_panel=SHOWN,
        ),
    ] = None,
    target_gflops_share: Annotated[
        float | None,
        typer.Option(
            help="Adaptive budgets: what they may cost instead, as a share of their base.",
            rich_help_panel=SHOWN,
        ),
    ] = None,
    without: Annotated[
        list[str] | None,
        typer.Option(
            metavar="METHOD",
            help="Leave a method out of the table, so that videos that only it cannot do count. "
            "Repeatable.",
            rich_help_panel=SHOWN,
        ),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="METHOD,...",
            help="What every line is compared with, methods of the table or `full`. Default: "
            "full, random and prior-spread, where they are there.",
            rich_help_panel=SHOWN,
        ),
    ] = None,
    published: Annotated[
        int | None,
        typer.Option(
            metavar="1|2|3|4|6",
            help="Also show this table of the paper, with our lines beside it.",
            rich_help_panel=SHOWN,
        ),
    ] = None,
    brief: Annotated[
        bool,
        typer.Option(
            "--brief",
            help="Show the accuracies alone, at keep ratios 1, 0.5 and 0.3.",
            rich_help_panel=SHOWN,
        ),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print everything as JSON.", rich_help_panel=SHOWN)
    ] = False,
    csv: Annotated[
        Path | None,
        typer.Option(help="Also write the table to this file, all digits.", rich_help_panel=SHOWN),
    ] = None,
    latex: Annotated[
        Path | None,
        typer.Option(help="Also write the table to this file, for a paper.", rich_help_panel=SHOWN),
    ] = None,
) -> None:
    """Measure accuracy against cost for every method and keep ratio.

    Every clip is decoded and embedded once for all methods. Interrupt it at any time: the same
    command goes on where it stopped, and prints the table once all is done.
    """
    show = functools.partial(
        _show,
        class_ratio=class_ratio,
        max_loss=max_loss,
        gmacs_share=target_gflops_share,
        without=without or [],
        against=against,
        published=published,
        brief=brief,
        as_json=as_json,
        csv=csv,
        latex=latex,
    )
    for file in (csv, latex):
        if file is not None:
            options.require_writable_file(file)
    if published is not None:
        from selector.evaluation.report.published import require_published

        require_published(published)
    if table_only:
        from selector.evaluation import files as folder

        show(folder.Evaluation(out))
        return
    if data_root is None:
        raise ConfigError("evaluating needs the videos: --data-root DIR (or --table-only)")
    run_config = RunConfig(data_root=data_root, accept_classes=accept_classes, **run)
    options.require_writable_folder(out)

    from pipeline.backbones import load_backbone
    from pipeline.oracle.names import default_layer
    from selector.evaluation.config import EvalConfig, parse_gflops, parse_keep_ratios
    from selector.evaluation.run import evaluate as run_evaluation
    from selector.methods.names import parse_selectors
    from selector.methods.registry import parse_methods

    selectors = parse_selectors(selector or [])
    if methods is None:
        spread = [name.replace("lite", "lite-spread", 1) for name in selectors]
        methods = ",".join(["random", "uniform", "oracle", "oracle-predicted", *selectors, *spread])
    if layer is None and "oracle" in methods:
        layer = default_layer(load_backbone(backbone, revision, device="meta"), method)
    asked = EvalConfig(
        dataset=dataset,
        backbone=backbone,
        methods=tuple(map(str, parse_methods(methods, layer or "", method))),
        revision=revision,
        **options.clip_fields(split, views, sampling),
        limit=limit,
        decoder=decoder,
        selectors=selectors,
        keep_ratios=parse_keep_ratios(keep_ratios or ("1" if gflops else KEEP_RATIOS)),
        gflops=() if gflops is None else parse_gflops(gflops),
        num_seeds=seeds,
        precision=precision,
        shard_size=shard_size,
    )
    result = run_evaluation(asked, out, run_config, progress_stream=output.progress_stream())
    for loss in result.given_up:
        output.echo(
            f"shard {loss.shard} given up after {loss.attempt} attempts: {loss.reason}", err=True
        )
    if result.given_up:
        output.echo("not complete: the same command tries again what is missing", err=True)
    if result.evaluation.shards():
        show(result.evaluation)
    if result.given_up:
        raise typer.Exit(1)


def _show(
    evaluation: Evaluation,
    *,
    class_ratio: float,
    max_loss: float | None,
    gmacs_share: float | None,
    without: list[str],
    against: str | None,
    published: int | None,
    brief: bool,
    as_json: bool,
    csv: Path | None,
    latex: Path | None,
) -> None:
    from pipeline.cli.evaluate_report import echo_brief, echo_published, echo_summary
    from pipeline.store.root import Root
    from selector.budgets.adaptive import AdaptiveGoal
    from selector.evaluation.report import export
    from selector.evaluation.report.published import beside
    from selector.evaluation.report.summary import summarise
    from selector.methods.names import split_names

    loss = None if max_loss is None else max_loss / 100
    unset = loss is None and gmacs_share is None
    goal = None if unset else AdaptiveGoal(max_loss=loss, gmacs_share=gmacs_share)
    summary = summarise(
        evaluation,
        class_ratio=class_ratio,
        goal=goal,
        without=without,
        against=None if against is None else split_names(against),
    )
    for file, written in ((csv, export.to_csv), (latex, export.to_latex)):
        if file is not None:
            Root(file.absolute().parent).put(file.name, written(summary).encode())
            output.note(f"table in {file}")
    if as_json:
        content = summary.to_dict()
        if published is not None:
            content["published"] = [
                {**line._asdict(), "ours": None if row is None else asdict(row)}
                for line, row in beside(published, summary.table)
            ]
        output.echo_json(content)
    elif brief:
        echo_brief(summary)
    else:
        echo_summary(summary)
    if published is not None and not as_json:
        echo_published(summary, published)
