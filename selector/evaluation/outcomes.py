"""From rows per clip to outcomes per video: the mean of a video's view scores decides.

Axes: V videos, M conditions, n clips of a shard, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import ClipStatus, StoreError
from selector.evaluation.config import Condition, EvalConfig
from selector.evaluation.folder import Evaluation
from selector.evaluation.layout import TOP


@dataclass(frozen=True, kw_only=True)
class VideoOutcomes:
    """What became of every video that has an outcome under every condition."""

    conditions: tuple[Condition, ...]
    """The columns."""
    video_ids: npt.NDArray[np.object_]
    """(V,)"""
    labels: npt.NDArray[np.int64]
    """(V,)"""
    label_rank: npt.NDArray[np.int64]
    """(V, M) place of the label among the classes, 0 = first."""
    confidence: npt.NDArray[np.float64]
    """(V, M) mean probability, over the views, of the class that has the highest one."""
    num_failed: int
    """Videos left out: some condition has no view of theirs that worked."""
    num_missing: int
    """Videos of the plan that are not, or not wholly, evaluated yet."""

    @property
    def top1(self) -> npt.NDArray[np.float64]:
        """(V, M), 1 where the label is first."""
        return (self.label_rank == 0).astype(np.float64)

    @property
    def top5(self) -> npt.NDArray[np.float64]:
        """(V, M), 1 where the label is among the first five."""
        return (self.label_rank < TOP).astype(np.float64)


def read_outcomes(evaluation: Evaluation) -> VideoOutcomes:
    """Read all committed shards, one at a time.

    Raises:
        StoreError: nothing is committed yet, or a file is damaged.
    """
    config, plan = evaluation.config, evaluation.plan()
    # Clips are sorted by video, so a video is a run of consecutive rows.
    ids = plan["video_id"].combine_chunks().dictionary_encode()
    video = ids.indices.to_numpy()
    num_videos, m = len(ids.dictionary), len(config.conditions)
    rank = np.zeros((num_videos, m), np.int64)
    confidence = np.full((num_videos, m), np.nan)
    views = np.zeros((num_videos, m), np.int64)
    seen = np.zeros(num_videos, np.int64)
    labels = np.zeros(num_videos, np.int64)
    labels[video] = plan["label"].to_numpy()
    num_classes, average = len(evaluation.info.label_names), _ViewAverage()
    for shard in evaluation.shards():
        table = evaluation.read_shard(shard, _columns(config))
        at = video[table["clip_id"].to_numpy().reshape(-1, m)[:, 0]]
        ok = pc.equal(table["status"], ClipStatus.OK.value).to_numpy().reshape(-1, m)
        np.add.at(views, at, ok)
        np.add.at(seen, at, 1)
        if config.num_views == 1:
            rank[at] = table["label_rank"].to_numpy().reshape(-1, m)
            confidence[at] = table["confidence"].to_numpy().reshape(-1, m)
        else:
            average.add(at, _probabilities(table["log_probs"], ok, num_classes), ok)
            average.settle(int(at[-1]), labels, rank, confidence)
    average.settle(num_videos, labels, rank, confidence)
    if not seen.any():
        raise StoreError(f"{evaluation.root} has no committed results yet")
    whole = seen == config.num_views
    good = whole & (views > 0).all(axis=1)
    return VideoOutcomes(
        conditions=config.conditions,
        video_ids=ids.dictionary.to_numpy(zero_copy_only=False)[good],
        labels=labels[good],
        label_rank=rank[good],
        confidence=confidence[good],
        num_failed=int((whole & ~good).sum()),
        num_missing=int((~whole).sum()),
    )


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


def _columns(config: EvalConfig) -> list[str]:
    scores = ["label_rank", "confidence"] if config.num_views == 1 else ["log_probs"]
    return ["clip_id", "status", *scores]


def _probabilities(
    log_probs: pa.ChunkedArray, ok: npt.NDArray[np.bool_], num_classes: int
) -> npt.NDArray[np.float32]:
    """(n, M, C), zero where the view failed."""
    found = np.zeros((*ok.shape, num_classes), np.float32)
    values = pc.list_flatten(log_probs).to_numpy()
    found[ok] = np.exp(values.reshape(-1, num_classes))
    return found
