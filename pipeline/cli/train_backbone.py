"""`lite-pipeline train-backbone`: a small backbone, on the rendered benchmark or any dataset."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli import options, output
from pipeline.config import require_one_of
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from datasets_spec import DatasetSpec
    from datasets_spec.types import Video
    from pipeline.standin.config import BackboneConfig
    from pipeline.standin.finetune import FootageConfig
    from pipeline.standin.footage import Footage
    from pipeline.standin.train import Trainer

RENDERED = "synthetic"


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(train_backbone)


def train_backbone(
    data_root: Annotated[Path, typer.Option(help="Folder of the dataset.")],
    out: Annotated[Path, typer.Option(help="Folder for the checkpoint; resumes what is there.")],
    dataset: options.Dataset = RENDERED,
    split: Annotated[str, typer.Option(help="Split to train on.")] = "train",
    validation_split: Annotated[
        str, typer.Option(help="Split to validate on, never trained on.")
    ] = "validation",
    init: options.StartFrom = None,
    sampling: options.SamplingRule = None,
    family: Annotated[
        str, typer.Option(help="videomae, or timesformer (joint attention).")
    ] = "videomae",
    steps: Annotated[int, typer.Option(help="Optimiser steps; may change on resume.")] = 6000,
    layers: options.Layers = 6,
    width: options.Width = 96,
    patch: options.Patch = 8,
    batch_size: Annotated[int, typer.Option(help="Clips per step.")] = 64,
    lr: Annotated[float, typer.Option(help="Learning rate before the last part.")] = 2e-3,
    keep_ratio_range: Annotated[
        str,
        typer.Option(
            metavar="LOW,HIGH", help="Keep ratios that steps draw from; 1,1 drops no token."
        ),
    ] = "0.12,0.6",
    mixup: Annotated[
        float,
        typer.Option(help="Alpha by which clips and labels are mixed; not on the rendered ones."),
    ] = 0.0,
    label_smoothing: Annotated[
        float | None,
        typer.Option(
            help="Share of a label dealt out among all; by default 0.1. Not on the rendered ones."
        ),
    ] = None,
    crops: options.Crops = True,
    colour: options.Colour = True,
    seed: Annotated[int, typer.Option(help="Of weights, batches, augmentation, dropping.")] = 0,
    precision: options.TrainingPrecision = "fp32",
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto.")] = "auto",
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 2,
    validate_every: Annotated[int, typer.Option(min=1, help="Steps between validations.")] = 500,
) -> None:
    """Train a small backbone on a dataset's videos, dropping tokens at every step."""
    import torch

    from datasets_spec import load_spec
    from pipeline.standin.checkpoint import claimed
    from pipeline.standin.config import FAMILY_SIZES, BackboneConfig
    from selector.adaptation.config import parse_range
    from selector.training.train import resolve_device

    low, high = parse_range(keep_ratio_range)
    require_one_of("family", family, FAMILY_SIZES)
    config = BackboneConfig(
        family=family,
        **FAMILY_SIZES[family],
        steps=steps,
        num_layers=layers,
        hidden_size=width,
        patch_size=patch,
        batch_size=batch_size,
        learning_rate=lr,
        keep_low=low,
        keep_high=high,
        seed=seed,
        precision=precision,
    )
    options.require_one_shape(init, layers, width, patch)
    options.require_writable_folder(out)
    spec = load_spec(dataset)
    device = str(resolve_device(device))
    if spec.name == RENDERED:
        asked = sampling or mixup or label_smoothing is not None or not (crops and colour)
        if asked or (split, validation_split) != ("train", "validation"):
            raise ConfigError(
                "--sampling, --mixup, --label-smoothing, --no-crops, --no-colour and the two "
                f"splits are for other datasets; the backbone of {RENDERED!r} is trained on its "
                "own splits, with a recipe of its own"
            )
        if init and family == "videomae":
            raise ConfigError(
                f"a VideoMAE of {RENDERED!r} is trained from scratch; --init is for other datasets "
                "or another --family"
            )
        config, make = _rendered(config, spec, init, data_root, out, device, threads)
    else:
        splits = (split, validation_split)
        recipe = {
            "sampling": sampling or spec.sampling,
            "mixup": mixup,
            **options.variation(crops, colour),
            **({} if label_smoothing is None else {"label_smoothing": label_smoothing}),
        }
        config, make = _footage(config, spec, splits, init, recipe, data_root, out, device, threads)
    torch.set_num_threads(threads)
    with claimed(out, config):
        trainer, validation = make()
        top1 = _run(trainer, validation, validate_every)
    output.echo(f"checkpoint in {out}: top-1 {100 * top1:.1f} % on {len(validation)} videos")


def _rendered(
    config: BackboneConfig,
    spec: DatasetSpec,
    init: str | None,
    data_root: Path,
    out: Path,
    device: str,
    threads: int,
) -> tuple[BackboneConfig, Callable[[], tuple[Trainer, Any]]]:
    """The whole configuration, and what decodes the benchmark's videos and makes the training."""
    from datasets_spec import read_label_names
    from pipeline.standin import finetune
    from pipeline.standin.clips import load_clips
    from pipeline.standin.train import Trainer

    names = read_label_names(spec, data_root)
    start = finetune.open_checkpoint(init) if init else None
    if start:
        shape = finetune.shape_of(start, config.family)
        config = replace(config, **shape, init=start.digest)

    def make() -> tuple[Trainer, Any]:
        splits = []
        for split in ("train", "validation"):
            with output.counted(f"{split} videos") as decoded:
                splits.append(load_clips(data_root, split, out / "cache", config, threads, decoded))
        return Trainer(config, splits[0], names, out, device, start), splits[1]

    return config, make


def _footage(
    config: BackboneConfig,
    spec: DatasetSpec,
    splits: tuple[str, str],
    init: str | None,
    recipe: dict[str, Any],
    data_root: Path,
    out: Path,
    device: str,
    threads: int,
) -> tuple[BackboneConfig, Callable[[], tuple[Trainer, Any]]]:
    """The whole configuration, and what decodes a dataset's videos and makes their training."""
    from pipeline.standin import finetune
    from pipeline.standin.footage import read_plan, require_every_class

    plan = read_plan(spec, data_root, *splits)
    start = finetune.open_checkpoint(init) if init else None
    values = asdict(config) | (finetune.shape_of(start, config.family) if start else {})
    values |= {"init": start.digest if start else ""}
    whole = finetune.FinetuneConfig(
        **values, **recipe, dataset=spec.name, data_digest=plan.digest, flip=spec.flip
    )

    def make() -> tuple[Trainer, Any]:
        # Wider than the crops for training; for validation what `evaluate` takes.
        found = [
            decoded(name, videos, data_root, out, whole, share, threads)
            for name, videos, share in (
                ("train", plan.train, finetune.WIDER),
                ("validation", plan.validation, 1.0),
            )
        ]
        require_every_class(plan.label_names, found[0].labels.tolist())
        trainer = finetune.Finetuner(whole, found[0], plan.label_names, out, device, start)
        return trainer, found[1]

    return whole, make


def decoded(
    name: str,
    videos: Sequence[Video],
    data_root: Path,
    out: Path,
    config: FootageConfig,
    share: float,
    threads: int,
) -> Footage:
    """The clips of some videos, `share` times as large as the model's, decoded with a line."""
    from pipeline.decode import DecodeRequest
    from pipeline.standin.footage import load_footage

    side = round(config.image_size * share)
    request = DecodeRequest(
        path="",
        num_frames=config.num_frames,
        size=side,
        short_side=side,
        sampling=config.sampling,
    )
    with output.counted(f"{name} videos") as count:
        return load_footage(videos, data_root, out / "cache", name, request, threads, count)


def _run(trainer: Trainer, validation: Any, validate_every: int) -> float:
    """Trains and validates with a progress line; top-1."""
    from pipeline.standin.loop import Schedule

    line = output.progress(trainer.num_steps, trainer.step, "steps")
    try:
        return trainer.run(
            validation,
            Schedule(validate_every=validate_every),
            lambda step, loss: line.add(step - line.done),
        )
    finally:
        line.close()
