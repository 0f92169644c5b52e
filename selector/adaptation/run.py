"""Adapting: from what is asked for to a model's folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import torch

from datasets_spec import default_split, load_spec
from pipeline.backbones import load_backbone
from pipeline.clips.inputs import read_inputs
from pipeline.clips.plan import units
from pipeline.config import RunConfig
from pipeline.errors import ConfigError
from pipeline.standin.loop import OnProgress, Schedule, advance
from selector.adaptation.clips import load_clips
from selector.adaptation.config import AdaptConfig
from selector.adaptation.files import CACHE_NAME, AdaptResult, check_free, read_result, write_result
from selector.adaptation.train import Adaptation
from selector.deploy.model import LiteModel
from selector.methods.names import LITE, require_selectors
from selector.methods.registry import parse_method
from selector.training.files import claimed, load_selector, selector_digest
from selector.training.split import is_held_out
from selector.training.train import resolve_device

SAVE_EVERY = 50
"""Steps between saves, of which a kill loses the last ones."""
OnStep = Callable[[int, int], None]
"""Called with (steps done, steps in all)."""


def _silent() -> AbstractContextManager[OnProgress]:
    return nullcontext(lambda done, total: None)


def adapt(
    asked: AdaptConfig,
    out: Path,
    run: RunConfig,
    *,
    keep_ratio: float | None = None,
    decoding: Callable[[], AbstractContextManager[OnProgress]] = _silent,
    on_step: OnStep = lambda done, total: None,
) -> AdaptResult:
    """Begins an adaptation or goes on with one, to its end; `out` is then a model's folder.

    Args:
        asked: with what the dataset and the checkpoint shall decide left open.
        out: new, or of this adaptation.
        run: where the videos are, and how fast.
        keep_ratio: of the model, unless told otherwise; default: the middle of the range.
        decoding: shows how far the decoding is.
        on_step: shows how far the training is.

    Raises:
        LiteError: the dataset, the checkpoint, the selector or the videos do not do; see
            `AdaptConfig` and `Pace.plan`.
    """
    torch.set_num_threads(run.threads_per_worker)
    name = parse_method(asked.method)
    require_selectors([name], {LITE} if asked.selector else ())
    spec = load_spec(asked.dataset)
    split = asked.split or default_split(spec, run.data_root, "train")
    needed = "have no label to learn: learn from the full model's answers (--distill)"
    inputs = read_inputs(
        replace(
            asked,
            selector_digest=selector_digest(asked.selector) if asked.selector else None,
        ),
        run,
        spec,
        split,
        views=(1, 1),
        without_label=None if asked.distill else needed,
    )
    config = inputs.config
    _check_elsewhere(out, config)
    check_free(out)
    with claimed(out, config.identity()) as files:
        found = read_result(files)
        if found is not None:
            return found
        device = str(resolve_device(run.device))
        backbone = load_backbone(config.backbone, config.revision, device)
        selector = None if config.selector is None else load_selector(config.selector)
        model = LiteModel(
            backbone, selector, config.lite_config(keep_ratio), config.backbone, config.revision
        )
        if model.by_content:
            raise ConfigError(
                f"method {config.method} takes no keep ratio, because each clip's content decides "
                "how many tokens stay: there is no range of ratios to train on"
            )
        with decoding() as on_decoded:
            clips = load_clips(
                _without_set_aside(inputs.plan, config.set_aside),
                config,
                backbone,
                Path(run.data_root),
                out / CACHE_NAME,
                run.decode_workers,
                on_decoded,
            )
        training = Adaptation(config, model, *clips.split(config.held_out_below), files)
        if training.stopped == "steps":
            schedule = Schedule(validate_every=training.look_every, save_every=SAVE_EVERY)
            advance(training, schedule, lambda done, loss: on_step(done, training.num_steps))
        result = training.finish()
        model.save_pretrained(out)
        write_result(files, result)
        shutil.rmtree(out / CACHE_NAME)
        return result


def _without_set_aside(plan: pa.Table, share: float) -> pa.Table:
    kept = [not is_held_out(unit, share) for unit in units(plan)]
    return plan.filter(pa.array(kept, pa.bool_()))


def _check_elsewhere(out: Path, config: AdaptConfig) -> None:
    for what, place in (("selector", config.selector), ("backbone", config.backbone)):
        if place is not None and Path(place).expanduser().resolve() == out.resolve():
            raise ConfigError(f"--out is the {what}'s own folder: name another one")
