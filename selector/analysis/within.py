"""Means within videos, and what of these is one independent draw.

A video's clips are averaged first, so that one with many clips does not count more. Videos that the
dataset says are of one group (cut from one recording, say) are alike: intervals are over groups.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from pipeline.store.reader import Store
from selector.statistics import Groups


def within_videos(
    clips: pd.DataFrame, values: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], Groups]:
    """The mean of each video's clips.

    Args:
        clips: `video_id` and `unit` of each, as `Store.clips(units=True)` has them.
        values: (C, M) of the same clips.

    Returns:
        (V, M), and the (V,) units of these videos, for `selector.statistics`: the group of each
        where the dataset says one, else the video itself.
    """
    means = pd.DataFrame(values).groupby(clips["video_id"].to_numpy()).mean()
    units = clips.groupby("video_id")["unit"].first()
    return means.to_numpy(), units.loc[means.index].to_numpy(object)


def over(store: Store) -> str:
    """What the intervals of a store's analysis are over, as a sentence has it."""
    return "groups of the videos" if store.info.groups else "videos"
