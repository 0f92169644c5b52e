"""Options that several commands share: the same name, help and meaning everywhere."""

from __future__ import annotations

import functools
import inspect
import os
import tempfile
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from datasets_spec import list_specs
from pipeline.config import DECODERS, PRECISIONS, RunConfig
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from selector.deploy.model import LiteModel

WHAT = "What is built (part of the result's identity)"
HOW = "How it runs (may change from run to run)"


def _completing(values: Callable[[], Iterable[str]]) -> Callable[[str], list[str]]:
    """What a shell offers for an option that takes one of a few values."""
    return lambda incomplete: [value for value in values() if value.startswith(incomplete)]


StorePlace = Annotated[str, typer.Option("--store", help="Folder or URL of an oracle store.")]
StoreOracle = Annotated[
    str | None,
    typer.Option(
        "--oracle",
        help="Whose maps, where the store has several, such as hirescam@embeddings; by default "
        "the first.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Dataset = Annotated[
    str,
    typer.Option(
        help="Name of a dataset, or a YAML; see `datasets`.",
        rich_help_panel=WHAT,
        autocompletion=_completing(list_specs),
    ),
]
BackboneName = Annotated[
    str,
    typer.Option(help="Checkpoint folder, hub id, or `synthetic` (shipped).", rich_help_panel=WHAT),
]
Revision = Annotated[
    str | None, typer.Option(help="Commit or tag of a hub id.", rich_help_panel=WHAT)
]
AcceptClasses = Annotated[
    bool,
    typer.Option(
        "--accept-classes",
        help="Go on where class names of dataset and checkpoint disagree: their ids mean the same.",
        rich_help_panel=WHAT,
    ),
]
SamplingRule = Annotated[
    str | None,
    typer.Option(help="`uniform` or `stride:N`; by default the dataset's.", rich_help_panel=WHAT),
]
Limit = Annotated[
    int | None,
    typer.Option(help="Take an even sample of this many videos.", rich_help_panel=WHAT),
]
Decoder = Annotated[
    str,
    typer.Option(
        help=f"One of {', '.join(DECODERS)}.",
        rich_help_panel=WHAT,
        autocompletion=_completing(lambda: DECODERS),
    ),
]
Precision = Annotated[
    str,
    typer.Option(
        help=f"One of {', '.join(PRECISIONS)}.",
        rich_help_panel=WHAT,
        autocompletion=_completing(lambda: PRECISIONS),
    ),
]
StartFrom = Annotated[
    str | None,
    typer.Option(
        metavar="CKPT", help="VideoMAE to start from, or `synthetic` (shipped); else scratch."
    ),
]
Layers = Annotated[int, typer.Option(help="Transformer blocks, from scratch.")]
Width = Annotated[int, typer.Option(help="Channels of a token, from scratch.")]
Patch = Annotated[int, typer.Option(help="Side of a token, in pixels, from scratch.")]
TrainingPrecision = Annotated[
    str, typer.Option(help="fp32, or bf16 where the processor is fast at it.")
]
Crops = Annotated[bool, typer.Option("--crops/--no-crops", help="Random resized crops.")]
Colour = Annotated[bool, typer.Option("--colour/--no-colour", help="Vary brightness and contrast.")]
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


MethodName = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="What makes clips cheaper: lite, or any of `lite-pipeline methods` that a model can "
        "use; by default the model's.",
    ),
]


License = Annotated[
    str | None,
    typer.Option(
        "--license",
        help="Of the base model, for the model's card, as the hub names it: apache-2.0.",
    ),
]


def variation(crops: bool, colour: bool) -> dict[str, Any]:
    """The fields of `FootageConfig` that two options turn off."""
    off = {} if crops else {"smallest_crop": 1.0}
    return off if colour else off | {"colour": 0.0}


def require_one_shape(init: str | None, layers: int, width: int, patch: int) -> None:
    """Refuses a shape beside a checkpoint that has one.

    Raises:
        ConfigError: says so.
    """
    if init and (layers, width, patch) != (6, 96, 8):
        raise ConfigError(
            "--layers, --width and --patch are of the checkpoint where --init names one"
        )


def load_lite(
    model: str | None,
    backbone: str | None,
    method: str | None,
    *,
    device: str = "cpu",
    precision: str | None = None,
    spread: float | None = None,
) -> LiteModel:
    """The model that the options of a command name.

    Raises:
        ConfigError: they name none.
    """
    from selector.deploy.model import LiteModel

    if model is not None:
        return LiteModel.from_pretrained(
            model,
            device=device,
            precision=precision,
            backbone=backbone,
            spread=spread,
            method=method,
        )
    if backbone is None or method is None:
        raise ConfigError(
            "give --model DIR, or --backbone CHECKPOINT with a --method that needs no training, "
            "such as uniform or tome"
        )
    if spread is not None:
        raise ConfigError("--spread belongs to a trained selector: give its --model")
    return LiteModel.from_backbone(backbone, method, device=device, precision=precision or "fp32")


def clip_fields(split: str | None, views: str | None, sampling: str | None) -> dict[str, Any]:
    """What is asked for of a `ClipConfig`, where an option that was not given is an open field.

    Raises:
        ConfigError: no such views.
    """
    from pipeline.clips.views import parse_views

    segments, crops = (0, 0) if views is None else parse_views(views)
    return {
        "split": split or "",
        "num_segments": segments,
        "num_crops": crops,
        "sampling": sampling or "",
    }


def require_writable_folder(place: Path | str) -> None:
    """Refuse a folder that cannot be written to or made, before any work is done for it.

    Nothing is made: a file without a name is opened in the nearest folder above that exists. A URL
    passes; who opens it knows its rules.

    Raises:
        ConfigError: says what stands in the way.
    """
    if "://" in str(place):
        return
    there = Path(place).absolute()
    while not os.path.lexists(there):
        there = there.parent
    if not there.is_dir():
        raise ConfigError(f"cannot write into {place}: {there} is not a folder")
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise ConfigError(f"cannot write into {place}: {there}: {error.strerror}") from error


def require_drawing(*also: str) -> None:
    """Refuse to begin what draws where matplotlib, or another package of its, is not there.

    Raises:
        ConfigError: says how to get it.
    """
    missing = [name for name in ("matplotlib", *also) if find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"drawing needs {' and '.join(missing)}: pip install 'lite-pipeline[report]'"
        )


def require_writable_file(path: Path | str) -> None:
    """Refuse the path of a file that cannot be written; see `require_writable_folder`.

    Raises:
        ConfigError: says what stands in the way.
    """
    if Path(path).is_dir():
        raise ConfigError(f"cannot write {path}: it is a folder, give the name of a file")
    require_writable_folder(Path(path).absolute().parent)


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
        int, typer.Option(help="CPU threads of the model, per worker.", rich_help_panel=HOW)
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
        int, typer.Option(help="Attempts at a shard before it is given up.", rich_help_panel=HOW)
    ] = RunConfig.max_attempts,
    accept_missing: Annotated[
        bool,
        typer.Option(
            "--accept-missing",
            help="Record whole shards without one readable video; they else end the run.",
            rich_help_panel=HOW,
        ),
    ] = False,
    accept_killed: Annotated[
        bool,
        typer.Option(
            "--accept-killed",
            help="Record clips whose process is killed from outside whenever they are alone.",
            rich_help_panel=HOW,
        ),
    ] = False,
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
        "accept_missing": accept_missing,
        "accept_killed": accept_killed,
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
