"""`lite-pipeline train-backbone`: the small VideoMAE, on the rendered benchmark."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli import options, output

if TYPE_CHECKING:
    from pipeline.standin.config import BackboneConfig


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(train_backbone)


def train_backbone(
    data_root: Annotated[Path, typer.Option(help="Folder of `datasets make synthetic`.")],
    out: Annotated[Path, typer.Option(help="Folder for the checkpoint; resumes what is there.")],
    steps: Annotated[int, typer.Option(help="Optimiser steps; may change on resume.")] = 6000,
    layers: Annotated[int, typer.Option(help="Transformer blocks.")] = 6,
    width: Annotated[int, typer.Option(help="Channels of a token.")] = 96,
    batch_size: Annotated[int, typer.Option(help="Clips per step.")] = 64,
    lr: Annotated[float, typer.Option(help="Learning rate before the last part.")] = 2e-3,
    seed: Annotated[int, typer.Option(help="Of weights, batches, augmentation, dropping.")] = 0,
    precision: Annotated[
        str, typer.Option(help="fp32, or bf16 where the processor is fast at it.")
    ] = "fp32",
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto.")] = "auto",
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 2,
    validate_every: Annotated[int, typer.Option(min=1, help="Steps between validations.")] = 500,
) -> None:
    """Train a small VideoMAE on the rendered action benchmark, dropping tokens at every step."""
    import torch

    from datasets_spec import load_spec, read_label_names
    from pipeline.standin.checkpoint import claimed
    from pipeline.standin.config import BackboneConfig
    from selector.training.train import resolve_device

    config = BackboneConfig(
        steps=steps,
        num_layers=layers,
        hidden_size=width,
        batch_size=batch_size,
        learning_rate=lr,
        seed=seed,
        precision=precision,
    )
    options.require_writable_folder(out)
    names = read_label_names(load_spec("synthetic"), data_root)
    torch.set_num_threads(threads)
    device = str(resolve_device(device))
    with claimed(out, config):
        top1, count = _train(config, data_root, names, out, device, threads, validate_every)
    output.echo(f"checkpoint in {out}: top-1 {100 * top1:.1f} % on {count} videos")


def _train(
    config: BackboneConfig,
    data_root: Path,
    names: list[str],
    out: Path,
    device: str,
    threads: int,
    validate_every: int,
) -> tuple[float, int]:
    """Decodes, trains and validates with progress lines; top-1 and on how many videos."""
    from pipeline.standin.clips import load_clips
    from pipeline.standin.loop import Schedule
    from pipeline.standin.train import Trainer

    splits = []
    for split in ("train", "validation"):
        with output.counted(f"{split} videos") as decoded:
            splits.append(load_clips(data_root, split, out / "cache", config, threads, decoded))
    trainer = Trainer(config, splits[0], names, out, device)
    line = output.progress(config.steps, trainer.step, "steps")
    try:
        top1 = trainer.run(
            splits[1],
            Schedule(validate_every=validate_every),
            lambda step, loss: line.add(step - line.done),
        )
    finally:
        line.close()
    return top1, len(splits[1])
