"""`lite-pipeline train-confidence`: a MoViNet on a dataset's clips, for LITE++'s budget."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli import options, output
from pipeline.cli.train_backbone import RENDERED

if TYPE_CHECKING:
    import torch

    from selector.budgets.train_confidence import ConfidenceConfig, Vary


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(train_confidence)


def train_confidence(
    data_root: Annotated[Path, typer.Option(help="Folder of the dataset.")],
    out: Annotated[Path, typer.Option(help="Folder for the model; resumes what is there.")],
    dataset: options.Dataset = RENDERED,
    split: Annotated[str, typer.Option(help="Split to train on.")] = "train",
    validation_split: Annotated[
        str, typer.Option(help="Split to validate on, never trained on.")
    ] = "validation",
    backbone: Annotated[
        str, typer.Option(help="Backbone whose clips it will judge.")
    ] = "synthetic",
    revision: options.Revision = None,
    sampling: options.SamplingRule = None,
    model: Annotated[str, typer.Option(help="Size of the MoViNet: A0, A1 or A2.")] = "A0",
    init: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Base state dict to start from; else scratch."),
    ] = None,
    frames: Annotated[
        int, typer.Option(help="Frames it sees, spread evenly over the backbone's.")
    ] = 8,
    pixels: Annotated[
        int | None, typer.Option(help="Side of what it sees; by default the backbone's.")
    ] = None,
    steps: Annotated[int, typer.Option(help="Optimiser steps; may change on resume.")] = 3000,
    batch_size: Annotated[int, typer.Option(help="Clips per step.")] = 32,
    lr: Annotated[float, typer.Option(help="Learning rate before the last part.")] = 3e-3,
    seed: Annotated[int, typer.Option(help="Of weights, batches and augmentation.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto.")] = "auto",
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 2,
    validate_every: Annotated[int, typer.Option(min=1, help="Steps between validations.")] = 500,
) -> None:
    """Train a MoViNet on a dataset's videos: how sure it is sets LITE++'s budget."""
    import torch

    from datasets_spec import load_spec
    from pipeline.backbones import load_backbone
    from pipeline.backbones.pth import read_pth
    from pipeline.decode import DecodeRequest
    from pipeline.standin.checkpoint import claimed
    from pipeline.standin.finetune import WIDER
    from pipeline.standin.footage import load_footage, read_plan, require_every_class
    from pipeline.standin.loop import Schedule
    from selector.budgets.movinet import FIRST_KEY, load_movinet
    from selector.budgets.train_confidence import WEIGHTS, ConfidenceConfig, ConfidenceTrainer
    from selector.training.train import resolve_device

    options.require_writable_folder(out)
    spec = load_spec(dataset)
    plan = read_plan(spec, data_root, split, validation_split)
    judged = load_backbone(backbone, revision, str(resolve_device(device)))
    start = None if init is None else load_movinet(model, read_pth(init, None, FIRST_KEY).weights)
    config = ConfidenceConfig(
        dataset=spec.name,
        data_digest=plan.digest,
        backbone_digest=judged.digest,
        variant=model,
        init="" if init is None else hashlib.sha256(init.read_bytes()).hexdigest(),
        frames=frames,
        pixels=pixels or judged.image_size,
        sampling=sampling or spec.sampling,
        image_size=judged.image_size,
        flip=spec.flip,
        steps=steps,
        batch_size=batch_size,
        learning_rate=lr,
        seed=seed,
    )
    torch.set_num_threads(threads)
    with claimed(out, config):
        found = []
        # Wider than the crops that `vary` takes; for validation what `evaluate` takes.
        wider = 1.0 if spec.name == RENDERED else WIDER
        for name, videos, share in (
            ("train", plan.train, wider),
            ("validation", plan.validation, 1.0),
        ):
            request = replace(
                DecodeRequest(path="", sampling=config.sampling, **judged.clip_format),
                size=round(judged.image_size * share),
                short_side=round(judged.short_side * share),
            )
            with output.counted(f"{name} videos") as decoded:
                found.append(
                    load_footage(videos, data_root, out / "cache", name, request, threads, decoded)
                )
        require_every_class(plan.label_names, found[0].labels.tolist())
        trainer = ConfidenceTrainer(
            config, found[0], _vary(config), len(plan.label_names), judged, out, start
        )
        line = output.progress(trainer.num_steps, trainer.step, "steps")
        try:
            top1 = trainer.run(
                found[1],
                Schedule(validate_every=validate_every),
                lambda step, loss: line.add(step - line.done),
            )
        finally:
            line.close()
    output.echo(
        f"{out / WEIGHTS}: top-1 {100 * top1:.1f} % on {len(found[1])} videos at "
        f"{trainer.confidence.gmacs:.4g} GFLOPs a view; as a confidence it is "
        f"movinet:{model}@{out / WEIGHTS}"
    )


def _vary(config: ConfidenceConfig) -> Vary:
    """The rendered benchmark's clips vary together with their labels, all others by crops."""
    from pipeline.standin.augment import augment
    from pipeline.standin.finetune import vary

    def rendered(
        frames: torch.Tensor, labels: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        no_actions = labels.view(-1, 1, 1, 1)
        frames, labels, _ = augment(frames, labels, no_actions, generator)
        return frames, labels

    def cropped(
        frames: torch.Tensor, labels: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return vary(frames, config, generator), labels

    return rendered if config.dataset == RENDERED else cropped
