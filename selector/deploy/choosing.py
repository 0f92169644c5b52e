"""Choosing how a model saves, by what an evaluation measured: method and keep ratio for a goal.

What is picked as the best of many on some videos looks better there than it is. So every choice
comes with a second number: each half of the videos judged by what was picked on the other half.

Axes: V videos, S seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from pipeline.errors import ConfigError
from selector.budgets.rows import calibration_rows
from selector.deploy.config import LiteConfig
from selector.evaluation.files import Evaluation
from selector.evaluation.report.table import Entry
from selector.methods.spread import DEFAULT_SPREAD
from selector.statistics import FEW, Groups, mean_interval

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a model is to be: so much cheaper, or so accurate; exactly one of the two.

    Raises:
        ConfigError: none or both are given, or one is out of range.
    """

    speedup: float | None = None
    """Full cost over cost, at least, in multiply-accumulates; the most accurate is taken."""
    max_loss: float | None = None
    """Share of the videos that may be lost to the full model; the cheapest is taken."""

    def __post_init__(self) -> None:
        if (self.speedup is None) == (self.max_loss is None):
            raise ConfigError("say either how much cheaper the model shall be or what it may lose")
        if self.speedup is not None and not 1 < self.speedup < np.inf:
            raise ConfigError(f"the speed-up must be a number above 1, got {self.speedup!r}")
        if self.max_loss is not None and not 0 <= self.max_loss < 1:
            raise ConfigError(
                f"the loss must lie between 0 and 100 points, got {100 * self.max_loss:g}"
            )


class Difference(NamedTuple):
    """A mean over videos with its interval; a share of the videos."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What was chosen, and what speaks for it."""

    line: Entry
    full: Entry
    against_full: Difference
    """Its accuracy minus the full model's, on the videos it was chosen on."""
    expected: Difference
    """The same where each half is judged by what was chosen on the other: what to expect."""
    next_best: tuple[Entry, Difference] | None
    """The best line of another method that meets the goal, and the chosen one's gain over it."""
    num_lines: int
    """Lines that it was chosen from: those that cost little enough."""

    @property
    def num_videos(self) -> int:
        """Videos that all of it is over."""
        return len(self.full.top1)

    @property
    def speedup(self) -> float:
        """Full cost over cost."""
        assert self.full.gmacs is not None
        assert self.line.gmacs is not None
        return self.full.gmacs / self.line.gmacs


def choose(
    lines: Sequence[Entry],
    full: Entry,
    wanted: Wanted,
    half: Bools,
    groups: Groups | None = None,
) -> Choice:
    """Choose a line.

    Args:
        lines: what there is to choose from, all on the same V videos.
        full: the full model on them.
        wanted: the goal.
        half: (V,) which of two halves a video is in; all of a group are in the same.
        groups: (V,) of the videos; None where each is its own.

    Raises:
        ConfigError: no line meets the goal, or the videos are too few to tell.
    """
    units = [len(half[side] if groups is None else set(groups[side])) for side in (half, ~half)]
    if min(units) < FEW // 4 or sum(units) < FEW:
        of_groups = "" if groups is None else f", of {sum(units)} groups,"
        raise ConfigError(
            f"{len(half)} videos{of_groups} are left to judge by, and on fewer than {FEW} chance "
            "decides: give more labelled videos"
        )
    costed = [line for line in lines if line.gmacs is not None]
    right = np.stack([full.top1.mean(axis=1), *(c.top1.mean(axis=1) for c in costed)], axis=1)
    gaps = right - right[:, :1]
    gmacs = np.array([line.gmacs for line in [full, *costed]], np.float64)
    best = _best(gaps, gmacs, wanted)
    if best == 0:
        raise ConfigError(_out_of_reach(costed, gaps, gmacs, wanted))
    crossed = np.zeros(len(half))
    for side in (half, ~half):
        crossed[side] = gaps[side, _best(gaps[~side], gmacs, wanted)]
    chosen = costed[best - 1]
    others = np.array([False, *(line.method != chosen.method for line in costed)])
    second = _best(np.where(others, gaps, -np.inf), gmacs, wanted) if others.any() else 0
    next_best = None
    if second:
        next_best = costed[second - 1], difference(gaps[:, best] - gaps[:, second], groups)
    return Choice(
        line=chosen,
        full=full,
        against_full=difference(gaps[:, best], groups),
        expected=difference(crossed, groups),
        next_best=next_best,
        num_lines=int(_cheap(gmacs, wanted).sum()),
    )


class Spreads(NamedTuple):
    """What an evaluation says of a sample by value against the best tokens."""

    better: float
    """The spread that was right more often; 0, the best tokens, where both were."""
    gain: Difference
    """Of the sample over the best tokens."""
    keep_ratio: float
    num_videos: int


def better_spread(folder: Path, evaluation: Evaluation, keep_ratio: float | None) -> Spreads:
    """Which spread serves a model better, on videos that it did not learn from.

    Args:
        folder: of the model.
        evaluation: finished, with `lite` and `lite-spread` of the model's selector.
        keep_ratio: where they are compared; None for the model's.

    Raises:
        ConfigError: rows are missing (names the command that makes them), or too few.
    """
    model = LiteConfig.load(folder)
    ratio = model.keep_ratio if keep_ratio is None else keep_ratio
    right, units = [], pd.Series(dtype=object)
    for spread in (0.0, DEFAULT_SPREAD):
        rows = calibration_rows(folder, evaluation, model.with_spread(spread))
        found = pd.Series(rows.levels.is_right[:, rows.level(ratio)], rows.clip_ids)
        right.append(found.astype(float))
        units = pd.Series(rows.units, rows.clip_ids)
    gaps = (right[1] - right[0]).dropna()  # of the clips that both could do
    videos = evaluation.plan()["video_id"].to_pandas()[gaps.index]
    of_videos = pd.DataFrame({"gap": gaps, "group": units[gaps.index]}).groupby(videos)
    gain = difference(of_videos["gap"].mean().to_numpy(), of_videos["group"].first().to_numpy())
    better = DEFAULT_SPREAD if gain.mean > 0 else 0.0
    return Spreads(better, gain, ratio, videos.nunique())


def _best(gaps: Floats, gmacs: Floats, wanted: Wanted) -> int:
    """The line that serves the goal best; 0, the full model, where none meets it."""
    mean = gaps.mean(axis=0)
    usable = np.isfinite(mean) & _cheap(gmacs, wanted)
    if wanted.speedup is not None:
        order = np.lexsort((gmacs, -mean))
    else:
        assert wanted.max_loss is not None
        usable &= mean >= -wanted.max_loss - 1e-12
        order = np.lexsort((-mean, gmacs))
    return next((int(line) for line in order if usable[line]), 0)


def _cheap(gmacs: Floats, wanted: Wanted) -> Bools:
    """Which lines cost little enough; never the first, the full model."""
    if wanted.speedup is None:
        return gmacs < gmacs[0]
    return gmacs <= gmacs[0] / wanted.speedup * (1 + 1e-9)


def _out_of_reach(costed: Sequence[Entry], gaps: Floats, gmacs: Floats, wanted: Wanted) -> str:
    if wanted.speedup is not None:
        most = gmacs[0] / gmacs[1:].min() if costed else 1.0
        return (
            f"nothing that was evaluated is {wanted.speedup:g} times cheaper, the most is "
            f"{most:.2f} times: ask for less"
        )
    assert wanted.max_loss is not None
    mean = gaps[:, 1:].mean(axis=0)
    best = costed[int(mean.argmax())]
    return (
        f"nothing that was evaluated loses at most {100 * wanted.max_loss:g} points: the least is "
        f"{-100 * mean.max():.2f}, by {best.method} at keep ratio {best.keep_ratio:g}; allow more, "
        "or adapt the backbone to fewer tokens first"
    )


def difference(values: Floats, groups: Groups | None = None) -> Difference:
    """The mean of some videos' values in [-1, 1], (V,), with its interval over the groups, (V,)."""
    low, high = mean_interval(values[:, None], (-1.0, 1.0), groups=groups)[:, 0]
    return Difference(float(values.mean()), float(low), float(high))
