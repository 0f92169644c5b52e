"""How far chance could have moved an accuracy: the bootstrap over videos.

Videos are drawn with replacement, the same draws for every column, so that the difference of two
columns keeps what their videos have in common.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

NUM_DRAWS = 2000
LEVEL = 0.95
_VALUES_AT_ONCE = 1 << 24


def draws(num_videos: int, num_draws: int = NUM_DRAWS, seed: int = 0) -> Iterator[npt.NDArray]:
    """Weights of the videos in each resample, some resamples at a time: (R, V) float64.

    Every row sums to one; a video's weight is how often it was drawn, over V.
    """
    rng = np.random.default_rng(seed)
    step = max(1, _VALUES_AT_ONCE // num_videos)
    for first in range(0, num_draws, step):
        rows = min(step, num_draws - first)
        weights = np.zeros((rows, num_videos))
        for row in weights:
            drawn = rng.integers(0, num_videos, num_videos)
            row += np.bincount(drawn, minlength=num_videos)
        yield weights / num_videos


def resampled_means(
    values: npt.NDArray[np.float64], num_draws: int = NUM_DRAWS, seed: int = 0
) -> npt.NDArray[np.float64]:
    """Means of each column of `values` (V, M) in each resample: (R, M)."""
    return np.concatenate([w @ values for w in draws(len(values), num_draws, seed)])


def interval(samples: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Percentile interval of each column of (R, M): (2, M), low and high; NaN samples left out."""
    tail = (1 - LEVEL) / 2
    return np.nanquantile(samples, [tail, 1 - tail], axis=0)
