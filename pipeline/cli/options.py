"""Options that several commands share: the same name, help and meaning everywhere."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.config import DECODERS, PRECISIONS

WHAT = "What is built (part of the result's identity)"
HOW = "How it runs (may change from run to run)"

Dataset = Annotated[
    str,
    typer.Option(help="Name of a dataset, or a YAML; see `datasets`.", rich_help_panel=WHAT),
]
BackboneName = Annotated[
    str,
    typer.Option(help="Checkpoint folder, hub id, or `synthetic` (shipped).", rich_help_panel=WHAT),
]
Revision = Annotated[
    str | None, typer.Option(help="Commit or tag of a hub id.", rich_help_panel=WHAT)
]
SamplingRule = Annotated[
    str | None,
    typer.Option(help="`uniform` or `stride:N`; by default the dataset's.", rich_help_panel=WHAT),
]
Limit = Annotated[
    int | None,
    typer.Option(help="Take an even sample of this many videos.", rich_help_panel=WHAT),
]
Decoder = Annotated[str, typer.Option(help=f"One of {', '.join(DECODERS)}.", rich_help_panel=WHAT)]
Precision = Annotated[str, typer.Option(help=f"{' or '.join(PRECISIONS)}.", rich_help_panel=WHAT)]
ShardSize = Annotated[
    int,
    typer.Option(help="Clips per shard, the unit of work and commit.", rich_help_panel=WHAT),
]
Workers = Annotated[
    int, typer.Option(help="Ray workers; 0 runs in this process.", rich_help_panel=HOW)
]
GpusPerWorker = Annotated[
    float, typer.Option(help="GPUs, or a share of one, per Ray worker.", rich_help_panel=HOW)
]
BatchSize = Annotated[int, typer.Option(help="Clips per forward pass.", rich_help_panel=HOW)]
DecodeWorkers = Annotated[
    int, typer.Option(help="Decoder processes per worker.", rich_help_panel=HOW)
]
Threads = Annotated[
    int, typer.Option(help="Threads of the model on a CPU, per worker.", rich_help_panel=HOW)
]
Device = Annotated[str, typer.Option(help="cpu, cuda, or auto.", rich_help_panel=HOW)]
Address = Annotated[
    str | None,
    typer.Option(help="Ray cluster: auto, or host:port. Default: local.", rich_help_panel=HOW),
]
DecodeTimeout = Annotated[
    float, typer.Option(help="Seconds one video may take to decode.", rich_help_panel=HOW)
]
ShardTimeout = Annotated[
    float | None,
    typer.Option(
        help="Seconds one shard may take before its worker is killed.", rich_help_panel=HOW
    ),
]
MaxAttempts = Annotated[
    int, typer.Option(help="Tries of a shard before it is given up.", rich_help_panel=HOW)
]
