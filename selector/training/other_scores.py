"""Scores for a store's clips from another store: those of another backbone's oracle.

A clip there is a clip here if it is the same view of the same video. What must be the same:

* of the stores: dataset, sampling, views, token grid;
* of a video: its path, its label and, where both decoded it, its number of frames;
* of the checkpoints: the share of a frame that the crop shows; and with `stride:N`, whose window
  is as long as the clip, the number of frames.

So a token covers the same part of the video in both. With `uniform` sampling the backbones may
take different numbers of frames: those of row t of the grid lie in the t-th of equal parts of the
video, however many they are (8 tubelets of 2 frames, or 8 single frames). Which of a part's frames
are seen, their size in pixels, the decoder and the precision may differ, and are not compared. The
files themselves are not: two data roots may hold them in different sizes.

The order of the clips, the shards and the embeddings of the other store do not matter.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd

from pipeline.clips.views import Sampling
from pipeline.errors import ClipStatus, ConfigError, StoreMismatchError
from pipeline.store.reader import PENDING
from selector.training.checkpoint import load_store_backbone
from selector.training.targets import check_finite

if TYPE_CHECKING:
    from pipeline.store.reader import Store

LEAST_SHARED = 0.5
"""Least share of the smaller store's videos that the other must have, or they are hardly of the
same list: two splits that overlap by chance, or ids that mean something else."""


@dataclass(frozen=True, kw_only=True)
class SharedVideos:
    """How many videos two plans have in common."""

    num_both: int
    """In both."""
    num_only_here: int
    """In the store of the embeddings alone: not learnt from."""
    num_only_there: int
    """In the store of the scores alone: not used."""


class OtherScores:
    """The maps of another store's oracle, by the clips of this one.

    Keeps 4 bytes for each clip here and a few for each there; maps are read when asked for.

    Args:
        store: the store whose clips are meant, with its embeddings.
        other: the store whose scores are wanted.
        oracle: one of the other store's `oracles`; None for its first.

    Attributes:
        store: the other store.
        num_committed: its clips that are there.
        videos: how many the two have in common.

    Raises:
        ConfigError: both are the same store.
        StoreMismatchError: they do not mean the same clips and tokens; says what differs.
        StoreError: the other store does not have that oracle, or is damaged.
        BackboneError: a checkpoint that built one of them is not there any more.
    """

    def __init__(self, store: Store, other: Store, oracle: str | None = None) -> None:
        degenerate = other.column("degenerate", oracle)
        _check_same_tokens(store, other)
        here, there = store.plan(), other.plan()
        self.videos = _shared_videos(store, here, other, there)
        self._clip_there = _match(store, here, other, there)
        outcome = ["clip_id", "status", "num_frames_total", degenerate]
        found = other.clips(outcome).set_index("clip_id")
        self._found = found.rename(columns={degenerate: "degenerate"}).astype(
            {"status": "category"}
        )
        self.store, self.num_committed, self._oracle = other, len(found), oracle
        self._here = str(store.root)

    def outcomes(
        self, clips: pd.DataFrame
    ) -> tuple[npt.NDArray[np.object_], npt.NDArray[np.bool_]]:
        """What became of clips in the other store.

        Args:
            clips: `clip_id`, `video_id`, `status` and `num_frames_total` of this store, n rows.

        Returns:
            (n,) statuses: a `ClipStatus`, `PENDING`, or None where the plan there has no such clip;
            and (n,) whether the map there is degenerate.

        Raises:
            StoreMismatchError: a video has another number of frames there.
        """
        clip_there = self._clip_there[clips["clip_id"].to_numpy()]
        found = self._found.reindex(clip_there)
        status = found["status"].astype(object).fillna(PENDING).to_numpy(copy=True)
        status[clip_there < 0] = None
        frames = clips["num_frames_total"].to_numpy()
        frames_there = found["num_frames_total"].fillna(-1).to_numpy(np.int64)
        both = (clips["status"] == ClipStatus.OK).to_numpy() & (status == ClipStatus.OK)
        wrong = both & (frames >= 0) & (frames_there >= 0) & (frames != frames_there)
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            video = clips["video_id"].iloc[row]
            raise _differs(
                self._here,
                str(self.store.root),
                {f"frames of video {video!r}": (frames[row], frames_there[row])},
            )
        # A clip that is not there compares as false.
        return status, found["degenerate"].eq(True).to_numpy(np.bool_)

    def maps(
        self, clip_ids: npt.NDArray[np.integer]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Scores and signed cams, both float32 (n, t, y, x), of clips that are ok in both stores.

        Args:
            clip_ids: (n,), as this store numbers them.

        Raises:
            StoreError: a map is damaged, or holds NaN or infinity.
        """
        clip_there = self._clip_there[clip_ids]
        shards, rows = np.divmod(clip_there, self.store.config.shard_size)
        scores = np.empty((len(clip_ids), *self.store.grid), np.float32)
        cam = np.empty_like(scores)
        # Plans are sorted by video, so that a shard here is of one or two shards there.
        for shard in np.unique(shards):
            mine = np.flatnonzero(shards == shard)
            data = self.store.read_shard(int(shard), embeddings=False, oracle=self._oracle)
            check_finite(str(self.store.root), data, rows[mine], ("scores", "cam"))
            scores[mine], cam[mine] = data.scores[rows[mine]], data.cam[rows[mine]]
        return scores, cam


def _check_same_tokens(store: Store, other: Store) -> None:
    """Refuses stores whose tokens do not cover the same parts of the same videos."""
    here, there = store.config, other.config
    if here.fingerprint() == there.fingerprint():
        raise ConfigError(
            f"{other.root} is no other store than {store.root}: leave --scores-from out, and name "
            "one of its oracles by --oracle"
        )
    names = ("dataset", "sampling", "num_segments", "num_crops")
    pairs = {name: (getattr(here, name), getattr(there, name)) for name in names}
    pairs["token grid"] = (tuple(store.grid), tuple(other.grid))
    _refuse_different(store, other, pairs)
    unknown = "nobody knows which frames and pixels its clips show"
    formats = [load_store_backbone(s, "meta", unknown).clip_format for s in (store, other)]
    mine, theirs = formats
    pairs = {}
    if Sampling.parse(here.sampling).stride is not None:
        name = f"frames of a clip (with sampling {here.sampling}, its length in the video)"
        pairs[name] = (mine["num_frames"], theirs["num_frames"])
    if mine["size"] * theirs["short_side"] != theirs["size"] * mine["short_side"]:
        shares = [f"{each['size']} of {each['short_side']} pixels" for each in formats]
        pairs["crop of the short side"] = (shares[0], shares[1])
    _refuse_different(store, other, pairs)


def _shared_videos(
    store: Store, here: pd.DataFrame, other: Store, there: pd.DataFrame
) -> SharedVideos:
    mine, theirs = set(here["video_id"]), set(there["video_id"])
    shared = len(mine & theirs)
    if shared < LEAST_SHARED * min(len(mine), len(theirs)):
        raise StoreMismatchError(
            f"{store.root} lists {len(mine)} videos and {other.root} {len(theirs)}, and only "
            f"{shared} are in both, fewer than {LEAST_SHARED:.0%} of the shorter list: build both "
            f"stores from the same videos (here split {store.config.split}, there "
            f"{other.config.split})"
        )
    return SharedVideos(
        num_both=shared,
        num_only_here=len(mine) - shared,
        num_only_there=len(theirs) - shared,
    )


def _match(
    store: Store, here: pd.DataFrame, other: Store, there: pd.DataFrame
) -> npt.NDArray[np.int32]:
    """The other store's clip of each clip here, int32 (n,); -1 where it has none."""
    key = ["video_id", "segment", "crop"]
    rows = pd.MultiIndex.from_frame(there[key]).get_indexer(pd.MultiIndex.from_frame(here[key]))
    found = np.flatnonzero(rows >= 0)
    for name in ("path", "label"):
        mine = here[name].to_numpy()[found]
        theirs = there[name].to_numpy()[rows[found]]
        wrong = np.flatnonzero(mine != theirs)
        if len(wrong):
            video = here["video_id"].iloc[found[wrong[0]]]
            pair = {f"{name} of video {video!r}": (mine[wrong[0]], theirs[wrong[0]])}
            _refuse_different(store, other, pair)
    clips = there["clip_id"].to_numpy(np.int32)[rows]
    return np.where(rows >= 0, clips, np.int32(-1))


def _refuse_different(store: Store, other: Store, pairs: dict[str, tuple[object, object]]) -> None:
    different = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
    if different:
        raise _differs(str(store.root), str(other.root), different)


def _differs(here: str, there: str, pairs: dict[str, tuple[object, object]]) -> StoreMismatchError:
    lines = ", ".join(f"{name} {mine} -> {theirs}" for name, (mine, theirs) in pairs.items())
    return StoreMismatchError(
        f"the scores of {there} are not about the clips of {here} (here -> there): {lines}; build "
        "both stores from the same videos, sampling and views, of backbones with the same grid"
    )
