"""From rows per clip to outcomes per video: the mean of a video's view scores decides.

Or to outcomes of every view apart, which is how a deployed model sets its budgets.

Axes: V videos (or views, where they are apart), M conditions, n clips of a shard, C classes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.clips.plan import units
from pipeline.errors import ClipStatus, ConfigError, NoOutcomesError
from pipeline.store.layout import GROUP
from selector.evaluation.config import FULL, Condition, EvalConfig
from selector.evaluation.files import Evaluation
from selector.evaluation.layout import PADDED, TOP


@dataclass(frozen=True)
class Measured:
    """What the videos cost under a condition where their content decides, means over the views."""

    num_kept: npt.NDArray[np.float64]
    """(V,)"""
    gmacs: npt.NDArray[np.float64]
    """(V,) of one view, with what deciding costs."""
    gmacs_backbone: npt.NDArray[np.float64]
    """(V,) of one view, without."""


@dataclass(frozen=True, kw_only=True)
class Outcomes:
    """What became of every video that has an outcome under every condition that counts."""

    conditions: tuple[Condition, ...]
    """The columns."""
    without: frozenset[str]
    """Methods that do not count; their columns mean nothing."""
    video_ids: npt.NDArray[np.object_]
    """(V,); as often as it has views that count, where they are apart."""
    clip_ids: npt.NDArray[np.int64]
    """(V,) row of the plan; a video's first."""
    labels: npt.NDArray[np.int64]
    """(V,)"""
    groups: npt.NDArray[np.object_] | None = None
    """(V,) what each video was cut from, itself where that is not known; None where the dataset
    says no groups. Videos of one group are alike, so chance is over groups."""
    label_rank: npt.NDArray[np.int64]
    """(V, M) place of the label among the classes, 0 = first."""
    confidence: npt.NDArray[np.float64]
    """(V, M) mean probability, over the views, of the class that has the highest one."""
    mass: npt.NDArray[np.float64]
    """(V, M) share of the predicted scores that the kept tokens hold, mean over the views."""
    measured: Mapping[int, Measured]
    """Columns that have no keep ratio to the videos' costs."""
    num_failed: int
    """Videos left out: some condition has no view of theirs that worked."""
    failed_by: dict[str, int]
    """Method to the videos left out that the full model did and it did not; only those above 0."""
    num_missing: int
    """Videos of the plan that are not, or not wholly, evaluated yet."""
    padded: npt.NDArray[np.bool_]
    """(V,) videos that are too short for a clip, so that some frames repeat; False where an older
    release did not say."""

    @property
    def units(self) -> npt.NDArray[np.object_]:
        """(V,) what is one independent draw: the group where the dataset says any, or the video."""
        return self.video_ids if self.groups is None else self.groups

    @property
    def top1(self) -> npt.NDArray[np.float64]:
        """(V, M), 1 where the label is first."""
        return (self.label_rank == 0).astype(np.float64)

    @property
    def top5(self) -> npt.NDArray[np.float64]:
        """(V, M), 1 where the label is among the first five."""
        return (self.label_rank < TOP).astype(np.float64)


def read_outcomes(
    evaluation: Evaluation, without: Collection[str] = (), *, views_apart: bool = False
) -> Outcomes:
    """Read all committed shards, one at a time.

    Args:
        evaluation: finished or not.
        without: methods that need not have worked for a video to count.
        views_apart: one outcome per view, and not their mean.

    Raises:
        NoOutcomesError: nothing is committed yet.
        StoreError: a file is damaged.
        ConfigError: `without` names a method that was not evaluated.
    """
    config, plan = evaluation.config, evaluation.plan()
    unknown = sorted(set(without) - set(config.methods))
    if unknown:
        raise ConfigError(
            f"cannot leave out {', '.join(unknown)}: {evaluation.root} evaluates "
            f"{', '.join(config.methods)}"
        )
    names = plan["video_id"].to_numpy()
    num_views = 1 if views_apart else config.num_views
    # Clips are sorted by video, so a video is a run of consecutive rows.
    video = np.arange(len(names)) if views_apart else pd.factorize(names)[0]
    first = np.flatnonzero(np.diff(video, prepend=-1))
    num_videos, m = len(first), len(config.conditions)
    rank = np.zeros((num_videos, m), np.int64)
    confidence = np.full((num_videos, m), np.nan)
    mass = np.zeros((num_videos, m))
    views = np.zeros((num_videos, m), np.int64)
    seen = np.zeros(num_videos, np.int64)
    padded = np.zeros(num_videos, np.bool_)
    labels = np.zeros(num_videos, np.int64)
    labels[video] = plan["label"].to_numpy()
    uneven = [i for i, condition in enumerate(config.conditions) if condition.keep_ratio is None]
    spent = np.zeros((len(_COSTS), num_videos, len(uneven)))
    num_classes, average = len(evaluation.info.label_names), _ViewAverage()
    for shard in evaluation.shards():
        wanted = [*_columns(num_views), PADDED, *(_COSTS if uneven else ())]
        table = evaluation.read_shard(shard, wanted)
        at = video[table["clip_id"].to_numpy().reshape(-1, m)[:, 0]]
        if PADDED in table.column_names:
            np.logical_or.at(padded, at, table[PADDED].to_numpy().reshape(-1, m)[:, 0])
        ok = pc.equal(table["status"], ClipStatus.OK.value).to_numpy().reshape(-1, m)
        np.add.at(views, at, ok)
        np.add.at(mass, at, np.where(ok, table["mass"].to_numpy().reshape(-1, m), 0.0))
        np.add.at(seen, at, 1)
        for kind, name in enumerate(_COSTS if uneven else ()):
            of_clips = table[name].to_numpy().reshape(-1, m)[:, uneven]
            np.add.at(spent[kind], at, np.where(ok[:, uneven], of_clips, 0.0))
        if num_views == 1:
            rank[at] = table["label_rank"].to_numpy().reshape(-1, m)
            confidence[at] = table["confidence"].to_numpy().reshape(-1, m)
        else:
            average.add(at, _probabilities(table["log_probs"], ok, num_classes), ok)
            average.settle(int(at[-1]), labels, rank, confidence)
    average.settle(num_videos, labels, rank, confidence)
    if not seen.any():
        raise NoOutcomesError(f"{evaluation.root} has no committed results yet")
    whole = seen == num_views
    counts = np.array([c.method not in without for c in config.conditions])
    lost = (views == 0) & counts
    good = whole & ~lost.any(axis=1)
    spent /= np.maximum(views[:, uneven], 1)
    return Outcomes(
        conditions=config.conditions,
        without=frozenset(without),
        video_ids=names[first][good],
        clip_ids=first[good],
        labels=labels[good],
        groups=_groups(plan, first[good]),
        label_rank=rank[good],
        confidence=confidence[good],
        mass=mass[good] / np.maximum(views[good], 1),
        measured={c: Measured(*spent[:, good, i]) for i, c in enumerate(uneven)},
        num_failed=int((whole & ~good).sum()),
        failed_by=_failed_by(config, lost[whole]),
        num_missing=int((~whole).sum()),
        padded=padded[good],
    )


def pool(parts: Sequence[Outcomes]) -> Outcomes:
    """Outcomes of several evaluations as one: the folds of a cross-validation, say.

    Args:
        parts: of the same conditions, on videos that no two of them share.

    Raises:
        ConfigError: other conditions, or a video twice.
    """
    first = parts[0]
    if any((p.conditions, p.without) != (first.conditions, first.without) for p in parts):
        raise ConfigError("only evaluations of the same methods, seeds and keep ratios go together")

    def joined(name: str) -> npt.NDArray[Any]:
        return np.concatenate([getattr(part, name) for part in parts])

    names = joined("video_ids")
    if len(np.unique(names)) < len(names):
        raise ConfigError("the same video is in two of the evaluations")
    grouped = all(part.groups is not None for part in parts)
    return Outcomes(
        conditions=first.conditions,
        without=first.without,
        video_ids=names,
        clip_ids=joined("clip_ids"),
        labels=joined("labels"),
        groups=joined("groups") if grouped else None,
        label_rank=joined("label_rank"),
        confidence=joined("confidence"),
        mass=joined("mass"),
        measured={
            column: Measured(
                *(
                    np.concatenate([getattr(part.measured[column], name) for part in parts])
                    for name in _COSTS
                )
            )
            for column in first.measured
        },
        num_failed=sum(part.num_failed for part in parts),
        failed_by=dict(sum((Counter(part.failed_by) for part in parts), Counter[str]())),
        num_missing=sum(part.num_missing for part in parts),
        padded=joined("padded"),
    )


def _groups(plan: pa.Table, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.object_] | None:
    if GROUP not in plan.column_names:
        return None
    return np.array(units(plan), np.object_)[rows]


def _failed_by(config: EvalConfig, lost: npt.NDArray[np.bool_]) -> dict[str, int]:
    """Counts, for each method, the videos (V, M) that it lost although the full model did not."""
    methods = np.array([condition.method for condition in config.conditions])
    lost = lost[~lost[:, methods == FULL].any(axis=1)]
    found = {m: int(lost[:, methods == m].any(axis=1).sum()) for m in config.methods}
    return {method: count for method, count in found.items() if count}


class _ViewAverage:
    """Sums of view probabilities, kept only for the videos whose views may still come."""

    def __init__(self) -> None:
        self._open: dict[int, npt.NDArray[np.float64]] = {}
        self._views: dict[int, npt.NDArray[np.int64]] = {}

    def add(
        self,
        video: npt.NDArray[np.int64],
        probabilities: npt.NDArray[np.float32],
        ok: npt.NDArray[np.bool_],
    ) -> None:
        """Adds views of `video` (n,): their probabilities (n, M, C), zero where not ok (n, M)."""
        for number, view, worked in zip(video.tolist(), probabilities, ok, strict=True):
            self._open[number] = self._open.get(number, 0.0) + view
            self._views[number] = self._views.get(number, 0) + worked

    def settle(
        self,
        last: int,
        labels: npt.NDArray[np.int64],
        rank: npt.NDArray[np.int64],
        confidence: npt.NDArray[np.float64],
    ) -> None:
        """Fills in the rows of the videos before `last`, and forgets them."""
        for number in [n for n in self._open if n < last]:
            sums, views = self._open.pop(number), self._views.pop(number)
            label = labels[number]
            of_label = sums[:, label : label + 1]
            ahead = (sums > of_label).sum(axis=1)
            rank[number] = ahead + (sums[:, :label] == of_label).sum(axis=1)
            with np.errstate(invalid="ignore"):  # no view worked: the video is left out
                confidence[number] = sums.max(axis=1) / views


_COSTS = ("num_kept", "gmacs", "gmacs_backbone")
"""Columns of `Measured`."""


def _columns(num_views: int) -> list[str]:
    scores = ["label_rank", "confidence"] if num_views == 1 else ["log_probs"]
    return ["clip_id", "status", "mass", *scores]


def _probabilities(
    log_probs: pa.ChunkedArray, ok: npt.NDArray[np.bool_], num_classes: int
) -> npt.NDArray[np.float32]:
    """(n, M, C), zero where the view failed."""
    found = np.zeros((*ok.shape, num_classes), np.float32)
    values = pc.list_flatten(log_probs).to_numpy()
    found[ok] = np.exp(values.reshape(-1, num_classes))
    return found
