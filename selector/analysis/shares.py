"""What share of the value the best tokens hold: of all tokens together, and within each video."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pandas as pd

from selector.analysis import distribution as dist
from selector.analysis.jackknife import jackknife
from selector.statistics import Groups, mean_interval

FRACTIONS = {"top1_share": 0.01, "top5_share": 0.05, "top10_share": 0.1, "top20_share": 0.2}
MEASURES = (*FRACTIONS, "gini")

_NUM_DRAWS = 500


def top_shares(counts: npt.NDArray[np.int64]) -> dict[str, float]:
    """`dist.top_share` of every one of `FRACTIONS`, by its name."""
    return {name: dist.top_share(counts, fraction) for name, fraction in FRACTIONS.items()}


def of_clips(scores: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """`MEASURES` within each clip.

    Args:
        scores: (clips, N) at least 0; NaN where a clip failed.

    Returns:
        (clips, 5). The best 1 % are rounded up to whole tokens, as in the clips table. NaN where a
        clip failed or all its scores are zero.
    """
    ordered = np.sort(scores, axis=1)[:, ::-1].astype(np.float64)
    num = ordered.shape[1]
    upto = np.cumsum(ordered, axis=1)
    number = [-(-num * round(100 * fraction) // 100) for fraction in FRACTIONS.values()]
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = upto[:, np.array(number) - 1] / upto[:, -1:]
        # The mean of the cumulative shares, best first, is 1/2 + 1/(2 N) where all are equal.
        gini = 2 * (upto.mean(axis=1) / upto[:, -1]) - 1 - 1 / num
    found: npt.NDArray[np.float64] = np.column_stack([shares, gini])
    found[~(upto[:, -1] > 0)] = np.nan
    return found


def of_videos(
    video_ids: pd.Series, labels: pd.Series, of_clip: npt.NDArray[np.float64]
) -> pd.DataFrame:
    """The mean of `MEASURES` over the clips of each video.

    Args:
        video_ids: (clips,).
        labels: (clips,) class ids, the same within a video.
        of_clip: (clips, 5) of `of_clips`; a clip that is NaN is left out.

    Returns:
        A row a video that has a clip left: `video_id`, `label`, `num_clips` and `MEASURES`.
    """
    frame = pd.DataFrame(of_clip, columns=list(MEASURES))
    frame.insert(0, "video_id", video_ids.to_numpy())
    frame.insert(1, "label", labels.to_numpy())
    by_video = frame.dropna(subset=["gini"]).groupby("video_id", sort=True)
    found = by_video.mean()
    found["label"] = by_video["label"].first()
    found.insert(1, "num_clips", by_video.size())
    return found.reset_index()


def table(
    by_group: npt.NDArray[np.int64], videos: pd.DataFrame, units: Groups | None = None
) -> pd.DataFrame:
    """Shares and Gini with 95 % intervals over videos, or over what they were cut from.

    Args:
        by_group: (groups, 15361) counts of disjoint groups of videos.
        videos: of `of_videos`.
        units: (videos,) what each was cut from, or itself; None where each is its own.

    Returns:
        `over`, `label`, `measure`, `value`, `low`, `high`. `over` is `tokens` (all of them
        together: a video whose tokens are worth more counts more; jackknife) or `videos` (the mean
        of what holds within each; bootstrap), and `label` a class, or NaN for all.
    """
    rows: list[tuple[str, float, str, float, float, float]] = []
    pooled = by_group.sum(axis=0)
    for name in MEASURES:
        statistic = _statistic(name)
        rows.append(("tokens", np.nan, name, statistic(pooled), *jackknife(statistic, by_group)))
    videos = videos.reset_index(drop=True)
    parts = [(np.nan, videos), *videos[videos["label"] >= 0].groupby("label")]
    for label, some in parts:
        if len(some):
            values = some[list(MEASURES)].to_numpy(np.float64)
            of = None if units is None else units[some.index]
            low, high = mean_interval(values, num_draws=_NUM_DRAWS, groups=of)
            found = zip(MEASURES, values.mean(axis=0), low, high, strict=True)
            rows += [("videos", label, *row) for row in found]
    return pd.DataFrame(rows, columns=["over", "label", "measure", "value", "low", "high"])


def _statistic(name: str) -> Callable[[npt.NDArray[np.int64]], float]:
    if name == "gini":
        return dist.gini
    return lambda counts: dist.top_share(counts, FRACTIONS[name])
