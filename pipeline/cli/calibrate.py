"""`lite-pipeline calibrate`: gives a model its adaptive budget (LITE++)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli import options, output
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from selector.budgets.calibrate import Calibrated
    from selector.budgets.validation import LabelledClips

BUDGETS = ("threshold", "mass")


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(calibrate)


def calibrate(
    store: Annotated[
        str, typer.Option(help="Store of labelled clips, best of the validation split.")
    ],
    data_root: Annotated[str, typer.Option(help="Folder of the store's videos.")],
    model: Annotated[
        Path, typer.Option(help="Folder of the model, which gets the result in lite.json.")
    ],
    target_gflops: Annotated[
        float | None, typer.Option(help="Mean GMACs per view, at most, everything included.")
    ] = None,
    max_loss: Annotated[
        float | None,
        typer.Option(help="Points of top-1 (0.6 = 0.6 %) that may be lost against --keep-ratio."),
    ] = None,
    keep_ratio: Annotated[
        float, typer.Option(help="The base budget, which the adaptive one starts from.")
    ] = 0.5,
    budget: Annotated[
        str,
        typer.Option(
            help="threshold (the paper's: easy and hopeless clips get the small budget) or mass "
            "(the fewest tokens that hold a share of the predicted value)."
        ),
    ] = "threshold",
    small_ratio: Annotated[
        float | None, typer.Option(help="The small budget; by default 0.3, or 0.2 from 0.3.")
    ] = None,
    confidence: Annotated[
        str | None,
        typer.Option(
            help="backbone:RATIO, hf:FOLDER_OR_ID or torchvision:NAME@WEIGHTS; by default the "
            "backbone on 5 % of the tokens. With the small ratio it is a cascade: its pass is the "
            "small budget's answer too."
        ),
    ] = None,
    held_out: Annotated[
        float,
        typer.Option(help="Share of the videos that train-selector held out, on its own store."),
    ] = 0.1,
    limit: Annotated[int | None, typer.Option(min=1, help="Clips at most, evenly spaced.")] = None,
    backbone: options.ModelBackbone = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Clips per forward pass.")] = 16,
    decode_workers: Annotated[int, typer.Option(min=1, help="Decoder processes.")] = 1,
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Pick the adaptive budget that meets a cost or an accuracy on labelled clips."""
    if budget not in BUDGETS:
        raise ConfigError(f"budget must be one of {', '.join(BUDGETS)}, got {budget!r}")
    if budget == "mass" and (small_ratio is not None or confidence is not None):
        raise ConfigError("--small-ratio and --confidence belong to --budget threshold")
    if not model.is_dir():
        raise ConfigError(f"{model} is no folder: export-lite copies a model of the hub into one")
    options.require_writable_folder(model)
    from dataclasses import replace

    from pipeline import open_store
    from pipeline.decode import DecodePool
    from selector.budgets.calibrate import calibrate_mass_budget, calibrate_threshold_budget
    from selector.budgets.confidence_names import DEFAULT_CONFIDENCE
    from selector.budgets.pick import Goal
    from selector.budgets.validation import choose_clips, decode_clips
    from selector.deploy.model import LiteModel
    from selector.training.train import resolve_device

    goal = Goal(target_gmacs=target_gflops, max_loss=None if max_loss is None else max_loss / 100)
    opened = open_store(store)
    lite = LiteModel.from_pretrained(model, device=str(resolve_device(device)), backbone=backbone)
    clips = choose_clips(opened, lite, held_out, limit)
    with DecodePool(decode_workers) as pool:
        batches = _shown(decode_clips(clips, opened, data_root, lite, pool, batch_size), len(clips))
        if budget == "mass":
            found = calibrate_mass_budget(lite, batches, goal, base_ratio=keep_ratio)
        else:
            found = calibrate_threshold_budget(
                lite, batches, goal, base_ratio=keep_ratio, small=small_ratio,
                confidence=confidence or DEFAULT_CONFIDENCE,
            )  # fmt: skip
    config = replace(found.config, sampling=opened.config.sampling)
    config.save(model)
    shown = found.to_dict() | {"budget": config.to_dict()["budget"]}
    if as_json:
        output.echo_json(shown)
    else:
        output.echo_lines(_report(found, model))


def _shown(batches: Iterable[LabelledClips], total: int) -> Iterator[LabelledClips]:
    """The batches, with a progress line on stderr."""
    line = output.progress(total)
    try:
        for batch in batches:
            yield batch
            line.add(len(batch.labels) + batch.num_failed, batch.num_failed)
    finally:
        line.close()


def _report(found: Calibrated, model: Path) -> str:
    given = ", ".join(f"{100 * share:.0f} % get {num}" for num, share in found.shares.items())
    failed = f", {found.num_failed} left out" if found.num_failed else ""
    result, held_out = found.outcome, found.held_out
    return "\n".join(
        [
            f"{found.config.budget}",
            f"on {result.num_rows} clips{failed}: {given} tokens",
            _line("fixed budget", result.base_gmacs, result.base_accuracy),
            _line("adaptive, on the clips it was chosen on", result.gmacs, result.accuracy),
            _line("adaptive, chosen on the other half", held_out.gmacs, held_out.accuracy)
            if held_out is not None
            else "  not judged on other clips: a half of them is empty or cannot meet the goal",
            f"saved in {model / 'lite.json'}; use it with `lite-pipeline predict --adaptive`",
        ]
    )


def _line(name: str, gmacs: float, accuracy: float) -> str:
    return f"  {name:40}  GFLOPs {gmacs:<8.4g}  top-1 {100 * accuracy:.2f} %"
