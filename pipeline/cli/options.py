"""Options that several commands share: the same name, help and meaning everywhere."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

from pipeline.config import DECODERS, PRECISIONS, RunConfig

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
ModelBackbone = Annotated[
    str | None, typer.Option(help="Checkpoint to use in place of the one the model names.")
]
Spread = Annotated[
    float | None,
    typer.Option(
        help="How evenly the kept tokens lie: 0 keeps the best, 2 samples by value; by default the "
        "model's."
    ),
]


def run_options(
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
) -> dict[str, Any]:
    """The options of every long run, as fields of `RunConfig` (all but `data_root`)."""
    return {
        "workers": workers,
        "gpus_per_worker": gpus_per_worker,
        "batch_size": batch_size,
        "decode_workers": decode_workers,
        "threads_per_worker": threads,
        "device": device,
        "ray_address": address,
        "decode_timeout_s": decode_timeout,
        "shard_timeout_s": shard_timeout,
        "max_attempts": max_attempts,
    }


def with_run_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of `run_options` in place of its parameter `run`.

    It is called with what `run_options` makes of them.
    """
    own = inspect.signature(command, eval_str=True)
    shared = inspect.signature(run_options, eval_str=True).parameters

    @functools.wraps(command)
    def call(**values: Any) -> None:
        run = run_options(**{name: values.pop(name) for name in shared})
        command(**values, run=run)

    parameters = [
        parameter
        for name, asked in own.parameters.items()
        for parameter in (shared.values() if name == "run" else [asked])
    ]
    # This is where typer finds the options.
    call.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
    return call
