"""`lite-pipeline pretrain-backbone`: masked pre-training of a small VideoMAE, without labels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli import options, output
from pipeline.cli.train_backbone import RENDERED, decoded

LOOK_EVERY = 100
"""Steps between entries of the log, each with the checkpoint."""


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(pretrain_backbone)


def pretrain_backbone(
    data_root: Annotated[Path, typer.Option(help="Folder of the dataset.")],
    out: Annotated[Path, typer.Option(help="Folder for the checkpoint; resumes what is there.")],
    dataset: options.Dataset = RENDERED,
    split: Annotated[
        str, typer.Option(help="Split to train on; its labels are not looked at.")
    ] = "train",
    init: options.StartFrom = None,
    sampling: options.SamplingRule = None,
    steps: Annotated[int, typer.Option(help="Optimiser steps; may change on resume.")] = 6000,
    layers: options.Layers = 6,
    width: options.Width = 96,
    patch: options.Patch = 8,
    batch_size: Annotated[int, typer.Option(help="Clips per step.")] = 64,
    lr: Annotated[float, typer.Option(help="Learning rate before the last part.")] = 2e-3,
    mask_ratio: Annotated[
        float, typer.Option(help="Share of the token grid's places that is hidden, in all frames.")
    ] = 0.9,
    crops: options.Crops = True,
    colour: options.Colour = True,
    seed: Annotated[int, typer.Option(help="Of weights, batches, augmentation, masks.")] = 0,
    precision: options.TrainingPrecision = "fp32",
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto.")] = "auto",
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 2,
) -> None:
    """Pre-train a small VideoMAE on unlabelled videos, for `train-backbone --init`."""
    import torch

    from datasets_spec import load_spec
    from datasets_spec.read import read_split
    from pipeline.standin import finetune
    from pipeline.standin.checkpoint import claimed
    from pipeline.standin.loop import Schedule, advance
    from pipeline.standin.pretrain import PretrainConfig, Pretrainer, digest_of
    from selector.training.train import resolve_device

    options.require_one_shape(init, layers, width, patch)
    options.require_writable_folder(out)
    spec = load_spec(dataset)
    videos = read_split(spec, data_root, split, labelled=False).videos
    start = finetune.open_checkpoint(init) if init else None
    shape = {"num_layers": layers, "hidden_size": width, "patch_size": patch}
    config = PretrainConfig(
        **(finetune.shape_of(start, "videomae") if start else shape),
        steps=steps,
        batch_size=batch_size,
        learning_rate=lr,
        mask_ratio=mask_ratio,
        **options.variation(crops, colour),
        seed=seed,
        precision=precision,
        init=start.digest if start else "",
        dataset=spec.name,
        data_digest=digest_of(videos),
        sampling=sampling or spec.sampling,
        flip=spec.flip,
    )
    device = str(resolve_device(device))
    torch.set_num_threads(threads)
    with claimed(out, config):
        clips = decoded("train", videos, data_root, out, config, finetune.WIDER, threads)
        trainer = Pretrainer(config, clips, out, device, start)
        line = output.progress(trainer.num_steps, trainer.step, "steps")
        try:
            advance(
                trainer,
                Schedule(validate_every=LOOK_EVERY),
                lambda step, loss: line.add(step - line.done),
            )
        finally:
            line.close()
    output.echo(
        f"checkpoint in {out}: reconstruction loss {trainer.loss:.3f} on {len(clips)} videos (1 is "
        f"each patch drawn as its mean); next: train-backbone --init {out}"
    )
