"""`lite-pipeline datasets`: what datasets are known, and whether one is ready for a build."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from datasets_spec import DatasetSpec, DatasetSpecError, list_specs, load_spec
from datasets_spec.agreement import Agreement, ClassAgreement, read_checkpoint_classes
from datasets_spec.check import DatasetCheck, SplitCheck, check_dataset
from datasets_spec.walk import count_skipped
from pipeline.cli import options, output
from pipeline.cli.table import Column, echo_table

datasets_app = typer.Typer(
    help="List the known datasets, check one before a build, or render one.",
    invoke_without_command=True,
)


def register(app: typer.Typer) -> None:
    """Adds `datasets` and its subcommands."""
    app.add_typer(datasets_app, name="datasets")


@datasets_app.callback()
def datasets(context: typer.Context, as_json: options.AsJson = False) -> None:
    """List the known datasets, or check one before a build."""
    if context.invoked_subcommand is None:
        list_datasets(as_json)


@datasets_app.command("list")
def list_datasets(as_json: options.AsJson = False) -> None:
    """List the datasets that --dataset knows by name."""
    specs = [load_spec(name) for name in list_specs()]
    if as_json:
        output.echo_json([_spec_as_json(spec) for spec in specs])
        return
    columns = [*map(Column, ("name", "sampling", "views", "splits", "what"))]
    rows = [
        (s.name, s.sampling, "{}x{}".format(*s.eval_views), " ".join(s.splits), s.title)
        for s in specs
    ]
    echo_table(columns, rows)
    output.echo()
    output.echo("views: temporal segments x spatial crops of the published evaluation")
    output.echo("--dataset also takes the path of a YAML; start from a copy of one of these:")
    output.echo(f"  {specs[0].source.parent}")


@datasets_app.command()
def check(
    name: Annotated[str, typer.Argument(help="Name of a dataset, or the path of a YAML.")],
    data_root: Annotated[Path, typer.Option(help="Folder of annotations and videos.")],
    split: Annotated[
        list[str] | None, typer.Option(help="Check this split only; may be repeated.")
    ] = None,
    backbone: Annotated[
        str | None,
        typer.Option(help="Checkpoint whose classes to compare: folder, hub id, or `synthetic`."),
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Commit or tag of a hub id.")] = None,
    accept_classes: Annotated[
        bool, typer.Option("--accept-classes", help="As for build-oracle: names may disagree.")
    ] = False,
    sizes: Annotated[
        bool,
        typer.Option(
            help="Look for files of zero bytes and of the same content (slow on network file "
            "systems)."
        ),
    ] = True,
    show: Annotated[int, typer.Option(min=0, help="Examples to show of each problem.")] = 5,
    as_json: options.AsJson = False,
) -> None:
    """Count a dataset's videos and name what is missing, double or of an unknown label.

    Exits with 1 if something would break a build. Missing and empty files would not: they
    become rows of the store with a status of their own.
    """
    classes = None
    if backbone is not None:
        from pipeline.backbones.checkpoint import find_config

        classes = read_checkpoint_classes(find_config(backbone, revision))
    result = check_dataset(
        load_spec(name), data_root, split or (), classes, sizes, accept_classes=accept_classes
    )
    if as_json:
        output.echo_json(_check_as_json(result, show))
    else:
        _echo_check(result, show)
    if result.obstacles():
        raise typer.Exit(1)


@datasets_app.command()
def make(
    name: Annotated[str, typer.Argument(help="Only `synthetic` can be made.")],
    out: Annotated[Path, typer.Option(help="New or empty folder; resumes what it began.")],
    videos: Annotated[int, typer.Option(help="Of every 20, 14 train, 5 validate, 1 tests.")],
    seed: Annotated[int, typer.Option(help="Of every video, with its number.")] = 0,
    codec: Annotated[
        str, typer.Option(help="vp9 (SSv2's), or h264, which carries motion vectors.")
    ] = "vp9",
    competitors: Annotated[
        bool,
        typer.Option(
            "--competitors/--no-competitors",
            help="Whether others act beside the labelled actor; the rest is the same.",
        ),
    ] = True,
    workers: Annotated[
        int | None, typer.Option(min=0, help="Rendering processes; 0 renders in this one.")
    ] = None,
) -> None:
    """Render the action benchmark: real video files in SSv2's own annotation format."""
    if name != "synthetic":
        raise DatasetSpecError(f"cannot make {name!r}: only the dataset `synthetic` is rendered")
    options.require_writable_folder(out)
    from datasets_spec.synthetic import make as make_synthetic

    with output.counted("videos") as report:
        make_synthetic(out, videos, seed, workers, report, codec, competitors)
    output.echo(f"{videos} videos in {out}; use them with")
    output.echo(f"  --dataset synthetic --data-root {out}")


def _echo_check(result: DatasetCheck, show: int) -> None:
    output.echo(f"{result.dataset} in {result.data_root}: {result.num_classes} classes")
    titles = ("videos", "missing", "empty", "duplicate", "unknown_label", "malformed")
    columns = [Column("split"), *(Column(title, right=True) for title in titles)]
    counts = {split.split: _counts(split) for split in result.splits}
    rows = [(split, *(counted[title] for title in titles)) for split, counted in counts.items()]
    echo_table(columns, rows)
    for split in result.splits:
        if split.error is not None:
            output.echo(f"{split.split}: {split.error}")
        if split.num_unlabelled:
            output.echo(f"{split.split}: {split.num_unlabelled} videos have no label")
        _echo_some(f"{split.split}: missing", split.missing, show)
        _echo_some(f"{split.split}: empty", split.empty, show)
        _echo_some(f"{split.split}: unusable", [p.message for p in split.problems], show)
    for problem in result.class_problems:
        output.echo(f"class names: {problem.message}")
    if result.skipped:
        output.echo(f"files that give no row: {count_skipped(result.skipped)}")
        _echo_some("they are", [f"{s.path}: {s.reason}" for s in result.skipped], show)
    for pair, ids in result.overlaps.items():
        _echo_some(f"{pair}: in both", ids, show)
    _echo_some("files of the same content", [*map(str, result.alike)], show)
    if result.alike:
        output.echo(
            "  leave one of each; or give them one `group` in a table, so that none is judged"
        )
        output.echo("  by what was learnt from another")
    if result.agreement is not None:
        _echo_agreement(result.agreement, show)
    if result.no_default is None:
        output.echo(f"split that a build takes: {', '.join(result.built)}")
    obstacles = result.obstacles()
    for obstacle in obstacles:
        output.echo(f"would break a build: {obstacle}")
    if not obstacles:
        output.echo("ready for a build")


def _echo_agreement(agreement: ClassAgreement, show: int) -> None:
    output.echo(f"classes of the checkpoint: {agreement.verdict.meaning}")
    if agreement.verdict is Agreement.COUNTS:
        ours, theirs = agreement.num_dataset, agreement.num_checkpoint
        output.echo(f"  dataset {ours}, checkpoint {theirs}")
    lines = [
        f"{d.class_id}: dataset {d.dataset!r}, checkpoint {d.checkpoint!r}"
        for d in agreement.differences
    ]
    _echo_some("ids that differ", lines, show)


def _echo_some(title: str, items: Sequence[str], show: int) -> None:
    if items:
        output.echo(f"{title} ({len(items)})" + (":" if show else ""))
        for item in items[:show]:
            output.echo(f"  {item}")
        if 0 < show < len(items):
            output.echo(f"  and {len(items) - show} more")


def _counts(split: SplitCheck) -> dict[str, int]:
    return {
        "videos": split.num_videos,
        "missing": len(split.missing),
        "empty": len(split.empty),
        "duplicate": len(split.of_kind("duplicate")),
        "unknown_label": len(split.of_kind("unknown_label")),
        "malformed": len(split.of_kind("malformed")),
        "unlabelled": split.num_unlabelled,
    }


def _check_as_json(result: DatasetCheck, show: int) -> dict[str, Any]:
    agreement = result.agreement
    return {
        "dataset": result.dataset,
        "data_root": result.data_root,
        "num_classes": result.num_classes,
        "splits": {
            split.split: {
                **_counts(split),
                "error": split.error,
                "missing_first": split.missing[:show],
                "empty_first": split.empty[:show],
                "problems_first": [problem.message for problem in split.problems[:show]],
            }
            for split in result.splits
        },
        "built_by_default": result.built[0] if result.built else None,
        "class_problems": [problem.message for problem in result.class_problems],
        "skipped": {
            "count": len(result.skipped),
            "by_reason": Counter(found.reason for found in result.skipped),
            "first": [{"path": s.path, "reason": s.reason} for s in result.skipped[:show]],
        },
        "overlaps": {
            pair: {"count": len(ids), "first": ids[:show]} for pair, ids in result.overlaps.items()
        },
        "alike": {
            "count": len(result.alike),
            "first": [
                {**asdict(found), "paths": found.paths[:show]} for found in result.alike[:show]
            ],
        },
        "checkpoint": None
        if agreement is None
        else {
            "verdict": agreement.verdict,
            "fits": agreement.fits,
            "num_classes": agreement.num_checkpoint,
            "num_differences": len(agreement.differences),
            "differences_first": [
                {"class_id": d.class_id, "dataset": d.dataset, "checkpoint": d.checkpoint}
                for d in agreement.differences[:show]
            ],
        },
        "obstacles": result.obstacles(),
        "ready": not result.obstacles(),
    }


def _spec_as_json(spec: DatasetSpec) -> dict[str, Any]:
    return {
        "name": spec.name,
        "format": spec.format,
        "title": spec.title,
        "homepage": spec.homepage,
        "citation": spec.citation,
        "splits": list(spec.splits),
        "eval_split": spec.eval_split,
        "sampling": spec.sampling,
        "train_views": list(spec.train_views),
        "eval_views": list(spec.eval_views),
        "yaml": str(spec.source),
    }
