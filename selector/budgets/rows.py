"""The rows of an evaluation that a model may be calibrated on, or the sentence why there are none.

Every view is a row, as a model sets a budget per clip. Videos that the selector was trained on are
left out by their id: its scores are too good on them.
"""

from __future__ import annotations

import logging
import shlex
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline.errors import ConfigError, StoreError
from selector.budgets.levels import Bools, Ints, Levels, SecondOpinion, levels_of
from selector.budgets.pick import MIN_ROWS
from selector.deploy.config import LiteConfig
from selector.evaluation.files import Evaluation
from selector.evaluation.results import read_outcomes
from selector.methods.names import LITE, LITE_SPREAD
from selector.methods.registry import parse_method
from selector.methods.spread import DEFAULT_SPREAD
from selector.training.files import read_config, selector_digest
from selector.training.split import may_have_trained

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class CalibrationRows:
    """What an evaluation says of one model; V rows, a view each."""

    evaluation: Evaluation
    folder: Path
    """The model's."""
    model: LiteConfig
    levels: Levels
    """Of the model's own method."""
    video_ids: npt.NDArray[np.object_]
    """(V,)"""
    units: npt.NDArray[np.object_]
    """(V,) what is one independent draw: the video's group where the dataset says one, else it."""
    clip_ids: Ints
    """(V,) rows of the evaluation's plan."""
    num_failed: int
    """Clips left out because they could not be evaluated."""
    num_trained_on: int
    """Clips left out because the selector may have been trained on their videos."""

    def level(self, keep_ratio: float) -> int:
        """The level of a keep ratio.

        Raises:
            ConfigError: it was not evaluated; names the command that does.
        """
        if keep_ratio not in self.levels.keep_ratios:
            name = parse_method(self.levels.method).name
            ratios = {*self.levels.keep_ratios, keep_ratio}
            raise ConfigError(
                f"{self.evaluation.root} has no rows of {self.levels.method} at keep ratio "
                f"{keep_ratio:g}. Make them with\n"
                f"  {evaluate_command(self.evaluation, self.folder, name, ratios)}"
            )
        return self.levels.keep_ratios.index(keep_ratio)

    def with_opinion(self, name: str, opinion: SecondOpinion) -> CalibrationRows:
        """With the confidence of a second model, (V,), and without the rows where it is NaN.

        Raises:
            ConfigError: too few rows are left.
        """
        rows = replace(self, levels=replace(self.levels, opinions={name: opinion}))
        known = np.isfinite(opinion.confidence)
        return replace(rows._of(known), num_failed=self.num_failed + int((~known).sum()))

    def _of(self, kept: Bools) -> CalibrationRows:
        rows = replace(
            self,
            levels=self.levels.of(kept),
            video_ids=self.video_ids[kept],
            units=self.units[kept],
            clip_ids=self.clip_ids[kept],
        )
        rows._check_enough()
        return rows

    def _check_enough(self) -> None:
        num, config = len(np.unique(self.video_ids)), self.evaluation.config
        if num >= MIN_ROWS:
            return
        trained = ""
        if self.num_trained_on:
            trained = (
                f" ({self.num_trained_on} clips are left out: the selector was trained on "
                f"{config.dataset}/{config.split} but for the videos it held out)"
            )
        raise ConfigError(
            f"{self.evaluation.root} has {num} videos to calibrate on{trained}, and what is picked "
            f"on fewer than {MIN_ROWS} is picked on noise: evaluate more videos, of a split that "
            "the selector was not trained on"
        )


def calibration_rows(
    folder: Path, evaluation: Evaluation, model: LiteConfig | None = None
) -> CalibrationRows:
    """Find the rows of the model in `folder`.

    Args:
        folder: what `train-selector` or `export-lite` wrote.
        evaluation: finished, with the model's selector among its methods.
        model: how it selects; default as its folder says.

    Raises:
        ConfigError: the evaluation has none of this model (names the command that makes them), or
            too few.
        StoreError: the evaluation is unfinished or damaged.
    """
    model = LiteConfig.load(folder) if model is None else model
    selector, config = read_config(folder), evaluation.config
    method = _method(evaluation, folder, model)
    sampling = model.sampling_of(selector)
    if config.sampling != sampling:
        raise ConfigError(
            f"{evaluation.root} sampled frames by {config.sampling}, and the model is served "
            f"{sampling}: a budget for one does not hold for the other; evaluate with --sampling "
            f"{sampling}"
        )
    if config.precision != model.precision:  # the answers differ by its rounding alone
        _log.warning(
            "%s is in %s, and the model answers in %s unless asked otherwise: what is picked holds "
            "for %s; evaluate with --precision %s for the other",
            evaluation.root, config.precision, model.precision, config.precision, model.precision,
        )  # fmt: skip
    others = [other for other in config.methods if other != method]
    outcomes = read_outcomes(evaluation, others, views_apart=True)
    if outcomes.num_missing:
        raise StoreError(
            f"{evaluation.root} is unfinished ({outcomes.num_missing} clips are missing), and what "
            "is there is no fair sample: run the same `lite-pipeline evaluate` to its end"
        )
    trained = may_have_trained(
        selector.trained_on, config.dataset, config.split, outcomes.video_ids, outcomes.groups
    )
    return CalibrationRows(
        evaluation=evaluation,
        folder=folder,
        model=model,
        levels=replace(
            levels_of(outcomes, evaluation.info, method),
            views=config.num_segments * config.num_crops,
        ),
        video_ids=outcomes.video_ids,
        units=outcomes.units,
        clip_ids=outcomes.clip_ids,
        num_failed=outcomes.num_failed,
        num_trained_on=int(trained.sum()),
    )._of(~trained)


def _method(evaluation: Evaluation, folder: Path, model: LiteConfig) -> str:
    """The evaluated method that keeps the tokens that the model keeps."""
    if not model.selects:
        raise ConfigError(
            f"the model in {folder} has method {model.method}, and adaptive budgets go with {LITE} "
            "alone"
        )
    names = {0.0: LITE, DEFAULT_SPREAD: LITE_SPREAD}
    if model.spread not in names:
        known = " and ".join(f"{spread:g} ({name})" for spread, name in names.items())
        raise ConfigError(
            f"the model in {folder} has spread {model.spread:g}, and evaluations know {known} "
            "only: export it with one of these"
        )
    name, digest = names[model.spread], selector_digest(folder)
    found = [method for method in evaluation.config.names if method.name == name]
    found = [method for method in found if method.predicts_values]
    digests = evaluation.config.selector_digests
    for method in found:
        if digests.get(method.selected_by or "") == digest:
            return str(method)
    had = f"{', '.join(map(str, found))} there is another selector" if found else f"no {name} there"
    command = evaluate_command(evaluation, folder, name, evaluation.config.keep_ratios)
    raise ConfigError(
        f"{evaluation.root} has no rows of the model in {folder} (selector {digest[:12]}; {had}). "
        f"Make them with\n  {command}"
    )


def evaluate_command(
    evaluation: Evaluation, folder: Path, name: str, ratios: Iterable[float]
) -> str:
    """What evaluates a model as an evaluation did others; its reader fills in DATA and NEW."""
    config = evaluation.config
    options = {
        "--dataset": config.dataset,
        "--split": config.split,
        "--backbone": config.backbone,
        "--revision": config.revision,
        "--sampling": config.sampling,
        "--views": f"{config.num_segments}x{config.num_crops}",
        "--selector": str(folder),
        "--methods": name,
        "--keep-ratios": ",".join(f"{ratio:g}" for ratio in sorted({*ratios}, reverse=True)),
    }
    given = [part for pair in options.items() if pair[1] is not None for part in pair]
    return f"lite-pipeline evaluate --data-root DATA --out NEW {shlex.join(map(str, given))}"
