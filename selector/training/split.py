"""Which clips of a store train the selector, which judge it, and which are left out.

Every split is by unit (`pipeline.clips.plan.units`: a group of videos that are alike, or a video
alone), so that two clips of one unit never stand on both sides, and by a hash of the unit's name
alone: it is the same on every machine, for every seed and variant, and stays the same when the
store grows.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pipeline.errors import ClipStatus, ConfigError, StoreError
from pipeline.store.reader import PENDING

if TYPE_CHECKING:
    from pipeline.store.reader import Store
    from selector.training.config import TrainedOn
    from selector.training.other_scores import OtherScores

LEFT_OUT, TRAIN, HELD_OUT = 0, 1, 2


def is_held_out(unit: str, fraction: float) -> bool:
    """Whether a unit belongs to the held-out `fraction` of all units."""
    # Salted, or the split would follow whatever else was drawn by a hash of the id: a plan cut by
    # --limit, for one, is that very sample.
    digest = hashlib.sha256(b"held out" + unit.encode()).digest()
    return int.from_bytes(digest[:8], "big") < fraction * 2**64


def halves(units: Iterable[str]) -> npt.NDArray[np.bool_]:
    """One of two fixed halves per unit, (n,): to pick on the one and judge on the other."""
    # Salted for the same reason.
    digests = (hashlib.sha256(f"half:{unit}".encode()).digest() for unit in units)
    return np.array([digest[0] % 2 == 1 for digest in digests], np.bool_)


def may_have_trained(
    trained_on: TrainedOn | None,
    dataset: str,
    split: str,
    video_ids: npt.NDArray[np.object_],
    groups: npt.NDArray[np.object_] | None,
) -> npt.NDArray[np.bool_]:
    """Whether a selector may have been trained on videos of a dataset's split, (n,).

    Which of the split's videos were in its store it does not know; so all count but those that it
    would have held out.

    Args:
        trained_on: the selector's clips.
        dataset: of the videos.
        split: of the dataset.
        video_ids: (n,)
        groups: (n,) the videos' units; None where the dataset says no groups (any more).
    """
    if trained_on is None or (trained_on.dataset, trained_on.split) != (dataset, split):
        return np.zeros(len(video_ids), np.bool_)
    units = groups if trained_on.by_group else video_ids
    if units is None:
        return np.ones(len(video_ids), np.bool_)
    return np.array([not is_held_out(unit, trained_on.held_out) for unit in units], np.bool_)


@dataclass
class StoreSplit:
    """The role of every committed clip; one byte a clip, whatever the store's size."""

    roles: dict[int, np.ndarray] = field(default_factory=dict)
    """Shard -> (n,) int8 of `LEFT_OUT`, `TRAIN`, `HELD_OUT`."""
    num_degenerate: int = 0
    """Clips that are ok but have no positive cam: all their scores are 0, nothing to learn."""
    num_missing: int = 0
    """Clips of the plan that are not committed yet, here or where the scores are."""
    failed: dict[str, int] = field(default_factory=dict)
    """Status -> clips that failed."""

    def count(self, role: int, shard: int | None = None) -> int:
        """Clips of a role, in one shard or in all."""
        shards = self.roles.values() if shard is None else (self.roles[shard],)
        return sum(int((roles == role).sum()) for roles in shards)


def split_store(
    store: Store,
    held_out_fraction: float = 0.1,
    allow_unfinished: bool = False,
    oracle: str | None = None,
    other: OtherScores | None = None,
) -> StoreSplit:
    """Reads the clips tables and gives every clip its role.

    Args:
        store: the store to train from.
        held_out_fraction: share of the units kept for judging, in (0, 1).
        allow_unfinished: train from the committed shards of a store still being built.
        oracle: whose scores are to be learnt; None for the first.
        other: the scores of another store, to be learnt in place of the store's own. Clips that it
            does not have are left out, those that failed in either store count as failed.

    Raises:
        ConfigError: the fraction is out of range, or leaves one side without a clip.
        StoreError: the store is empty, unfinished, holds no embeddings, or not that oracle; or the
            scores' store is unfinished, or does not mean the same clips.
    """
    if not 0 < held_out_fraction < 1:
        raise ConfigError(f"held_out_fraction must lie in (0, 1), got {held_out_fraction!r}")
    if store.config.embeddings_per_clip == 0:
        raise StoreError(
            f"{store.root} holds no embeddings (it was built with --embeddings-per-clip 0), and "
            "the selector learns from them; build a store with --embeddings-per-clip 128 or all"
        )
    degenerate = store.column("degenerate", oracle)
    columns = ["clip_id", "video_id", "status", "num_frames_total", degenerate]
    split, failed, num_committed = StoreSplit(), Counter[str](), 0
    for shard in store.shards():
        # One shard at a time: a table of all clips would grow with the store.
        clips = store.clips(columns, units=True, shards=[shard])
        num_committed += len(clips)
        ok = (clips["status"] == ClipStatus.OK).to_numpy(dtype=bool)
        flat = clips[degenerate].to_numpy(dtype=bool)
        failed.update(clips["status"][~ok])
        if other is not None:
            status, flat = other.outcomes(clips)
            lost = Counter(status[ok & (status != ClipStatus.OK)])
            split.num_missing += lost.pop(PENDING, 0)
            lost.pop(None, 0)  # counted by videos
            failed.update(lost)
            ok = ok & (status == ClipStatus.OK)
        flat = ok & flat
        split.num_degenerate += int(flat.sum())
        held_out = [is_held_out(unit, held_out_fraction) for unit in clips["unit"]]
        roles = np.where(held_out, HELD_OUT, TRAIN)
        split.roles[shard] = np.where(ok & ~flat, roles, LEFT_OUT).astype(np.int8)
    split.failed = dict(failed)
    split.num_missing += store.num_clips - num_committed
    if not allow_unfinished:
        _check_finished(store, num_committed)
        if other is not None:
            _check_finished(other.store, other.num_committed)
    _check_usable(store, split, held_out_fraction)
    return split


def _check_finished(store: Store, num_committed: int) -> None:
    if num_committed < store.num_clips:
        raise StoreError(
            f"{store.root} is unfinished: {num_committed} of {store.num_clips} clips are there. "
            "Run the same `lite-pipeline build-oracle` again to complete it, or train on what is "
            "there with --allow-unfinished"
        )


def _check_usable(store: Store, split: StoreSplit, fraction: float) -> None:
    num_train, num_held_out = split.count(TRAIN), split.count(HELD_OUT)
    if not num_train + num_held_out:
        raise StoreError(
            f"{store.root} has no clip to learn from: {sum(split.failed.values())} failed, "
            f"{split.num_degenerate} without a positive cam, {split.num_missing} not built; see "
            f"`lite-pipeline failures {store.root}`"
        )
    if not num_train or not num_held_out:
        units = "groups of the videos" if store.info.groups else "videos"
        raise ConfigError(
            f"{fraction:.0%} of the {units} of {store.root} leave {num_train} clips to train and "
            f"{num_held_out} to judge, and both need one; choose another --held-out"
        )
