"""Do the stored predictions agree with the labels? If not, class ids mean two things somewhere.

This is the net under every comparison of names: whatever mixed the labels up (another order, an id
too many, a checkpoint of another dataset without names), the predictions then miss them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import ClipStatus
from pipeline.store.reader import Store

Ids = npt.NDArray[np.integer[Any]]

SIGMAS = 3.0
"""Standard deviations from which a number is taken to be no accident."""
MIN_VIDEOS = 20
MIN_OF_A_CLASS = 3
MIN_KAPPA = 0.05
"""Share of the way from chance to perfect that predictions of any use have gone."""
NUM_SHOWN = 5


@dataclass(frozen=True)
class Exchanged:
    """A class whose commonest prediction is another class, of which the same is true."""

    label: int
    prediction: int
    count: int
    """Videos of `label` predicted as `prediction`."""
    num_videos: int
    """Videos of `label`."""


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """The stored predictions against the labels, over the clips that are ok and have a label."""

    num_clips: int
    top1: float
    """Share of the clips."""
    top5: float
    num_videos: int
    """Videos that `chance` and what follows are judged on: by their first clip."""
    chance: float
    """Top-1 to be expected if labels and predictions had nothing to do with each other."""
    near_chance: bool
    """Whether top-1 is no better than that; False where there is too little to tell."""
    exchanged: tuple[Exchanged, ...]

    def warning(self, names: Sequence[str]) -> str | None:
        """What to tell the user, or None.

        Args:
            names: of the classes, by id.
        """
        if self.near_chance:
            return (
                f"top-1 is {self.top1:.1%}, and {self.chance:.1%} would be chance: either dataset "
                "and checkpoint do not mean the same by a class id, or the checkpoint knows "
                "nothing of these videos. `lite-pipeline datasets check --backbone` compares the "
                "classes; do not use this store before you know"
            )
        if not self.exchanged:
            return None
        shown = ", ".join(
            f"{names[e.label]!r} as {names[e.prediction]!r} ({e.count} of {e.num_videos})"
            for e in self.exchanged[:NUM_SHOWN]
        )
        more = len(self.exchanged) - NUM_SHOWN
        return (
            f"{len(self.exchanged)} classes are predicted as one another: {shown}"
            f"{f' and {more} more' if more > 0 else ''}. Their ids seem to be exchanged between "
            "dataset and checkpoint; `lite-pipeline datasets check --backbone` compares the classes"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def measure_accuracy(store: Store) -> Accuracy | None:
    """Compare predictions with labels; None where no clip has both.

    Raises:
        StoreError: a clips table is damaged.
    """
    columns = ["video_id", "label", "prediction", "top5"]
    clips = store.clips(columns=columns, status=ClipStatus.OK)
    clips = clips[clips["label"] >= 0]
    if clips.empty:
        return None
    first = clips.drop_duplicates("video_id")
    labels, predictions = first["label"].to_numpy(), first["prediction"].to_numpy()
    return Accuracy(
        num_clips=len(clips),
        top1=float((clips["label"] == clips["prediction"]).mean()),
        top5=float(np.mean([y in best for y, best in zip(clips.label, clips.top5, strict=True)])),
        num_videos=len(first),
        chance=hits_by_chance(labels, predictions)[0] / len(first),
        near_chance=is_near_chance(labels, predictions),
        exchanged=find_exchanged(labels, predictions),
    )


def hits_by_chance(labels: Ids, predictions: Ids) -> tuple[float, float]:
    """Mean and standard deviation of the hits if the same predictions were dealt out at random.

    Exact, over all permutations: the null hypothesis of Cohen's kappa.

    Args:
        labels: (V,) class ids.
        predictions: (V,) class ids.
    """
    n = len(labels)
    size = int(max(labels.max(), predictions.max())) + 1
    a, b = (np.bincount(ids, minlength=size).astype(np.float64) for ids in (labels, predictions))
    pairs = float((a * b).sum())
    mean = pairs / n
    if n == 1:
        return mean, 0.0
    # E[hits * (hits - 1)]: two videos both hit, over all ordered pairs of videos.
    both = (pairs**2 + float((a * b * (1 - a - b)).sum())) / (n * (n - 1))
    return mean, math.sqrt(max(both + mean - mean**2, 0.0))


def is_near_chance(labels: Ids, predictions: Ids) -> bool:
    """Whether predictions are no better than if they had been dealt out among the videos.

    Near chance is what lies less than three standard deviations above the hits to be expected, or
    less than 5 % of the way from there to perfect. With fewer than 20 videos or two classes, or so
    few videos that being half way to perfect would lie less than five standard deviations above,
    nothing is near chance: there is too little to tell.

    Args:
        labels: (V,) class ids.
        predictions: (V,) class ids.
    """
    n = len(labels)
    if n < MIN_VIDEOS or len(np.unique(labels)) < 2:
        return False
    mean, sigma = hits_by_chance(labels, predictions)
    enough = (n - mean) / 2 >= 5 * sigma
    excess = float((labels == predictions).sum()) - mean
    return enough and excess < max(SIGMAS * sigma, MIN_KAPPA * (n - mean))


def find_exchanged(labels: Ids, predictions: Ids) -> tuple[Exchanged, ...]:
    """Classes that are predicted as one another, in pairs or longer circles, ascending.

    A class counts if its commonest prediction is another class that counts too. Classes that are
    only hard to tell apart do not: the circle ends at the one that both are taken for. Together
    they must hold more than half of their videos to the exchange, by three standard deviations of
    a fair coin; so a poor model, whose commonest mistake is not common, exchanges nothing.

    Args:
        labels: (V,) class ids.
        predictions: (V,) class ids.
    """
    found: dict[int, Exchanged] = {}
    for label in np.unique(labels):
        given, counts = np.unique(predictions[labels == label], return_counts=True)
        best, total = int(counts.argmax()), int(counts.sum())
        if total >= MIN_OF_A_CLASS and given[best] != label:
            found[int(label)] = Exchanged(int(label), int(given[best]), int(counts[best]), total)
    while stray := [label for label, e in found.items() if e.prediction not in found]:
        for label in stray:
            del found[label]
    count, total = (sum(e.count for e in found.values()), sum(e.num_videos for e in found.values()))
    if 2 * count - total < SIGMAS * math.sqrt(total):
        return ()
    return tuple(found.values())
