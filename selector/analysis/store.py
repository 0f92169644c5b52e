"""What a store says about the paper's principles 4 and 5: heavy tails, and how classes differ.

Needs the store alone and reads it shard by shard. What it keeps is histograms, whose size depends
on the number of classes only, and a few columns of the clips table.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from pipeline.errors import ClipStatus, StoreError
from pipeline.store.reader import Store
from selector.analysis import distribution as dist
from selector.analysis import tails
from selector.statistics import interval, json_values, spearman

QUANTILES = (0.5, 0.9, 0.99, 0.999)
HALF = 0.5
"""Score from which a token counts as important: half of its clip's best token."""

NUM_GROUPS = 50
"""Groups of videos that the jackknife of the tails leaves out in turn."""

TAIL_PARTS = (1, 2, 5)
"""The tail is fitted whole, its upper half and its upper fifth: a Pareto keeps its shape."""

RAW, RELATIVE = "raw", "relative"

TREND_MEASURES = ("half_share", "top10_share", "gini", "tail_shape")


@dataclass(frozen=True)
class Analysis:
    """Everything `lite-pipeline analyze` prints.

    Attributes:
        num_clips: clips with status `ok` that were counted.
        num_failed: committed clips left out.
        num_degenerate: counted clips whose scores are all zero.
        top1: accuracy of the unreduced model over the counted clips with a label; NaN without.
        pooled: inequality of the scores of all tokens together; see `describe`.
        tails: the unscaled positive values: `values`, `share` (of the positive values that is
            fitted), the columns of `tails.TailFit`, and the 95 % interval of the shape,
            `shape_low` and `shape_high`. Tails too small to fit have no row. `values` is

            * `raw`: as they are. This is what a histogram of all oracle values shows. A confident
              clip has larger values than another, and such a mixture is heavy-tailed by itself:
              exponential values whose mean varies from clip to clip pool to a Pareto tail.
            * `relative`: each divided by the mean positive value of its clip. This is the tail
              *within* clips. No token can exceed the number of positive tokens of its clip, which
              cuts shapes above about 0.5.
        classes: one row per class: `label`, `num_clips`, `top1`, the columns of `describe`, and
            `tail_shape`, the shape of the relative values at the largest share (NaN: too few).
        trends: whether easier classes have thinner tails; see `class_trends`.
        lorenz: `tokens` and `value`, cumulative shares from 0 to 1, about 1000 points.
        histogram: `group` (`all`; `easy` and `hard`: see `easy_and_hard`), `scale` (`linear` or
            `log`), `low`, `high` and `share` of the group's tokens in [low, high), the last bin
            with its end; see `dist.histogram`.
        easy_hard_distance: Kolmogorov-Smirnov distance of easy and hard classes' scores: the
            largest gap between their cumulative shares. NaN where there are no such groups.
    """

    num_clips: int
    num_failed: int
    num_degenerate: int
    top1: float
    pooled: dict[str, float]
    tails: pd.DataFrame
    classes: pd.DataFrame
    trends: pd.DataFrame
    lorenz: pd.DataFrame
    histogram: pd.DataFrame
    easy_hard_distance: float

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; NaN becomes None."""
        plain = asdict(self)
        for name, value in plain.items():
            if isinstance(value, pd.DataFrame):
                plain[name] = value.astype(object).where(value.notna(), None).to_dict("records")
        found: dict[str, Any] = json_values(plain)
        return found


def analyze_store(
    store: Store,
    tail: float = 0.1,
    on_progress: Callable[[int, int], None] | None = None,
    oracle: str | None = None,
) -> Analysis:
    """Count every value of the committed shards, pooled and per class.

    Args:
        store: opened by `pipeline.open_store`.
        tail: largest share of the positive values that a tail is fitted to.
        on_progress: called with (shards done, shards in all).
        oracle: whose values, by its name in the store; None for the first.

    Raises:
        StoreError: the store does not have that oracle, no committed clip has status `ok`, or the
            arrays are damaged.
    """
    degenerate = store.column("degenerate", oracle)
    columns = ["clip_id", "video_id", "label", "status", "prediction", degenerate]
    clips = store.clips(columns=columns).set_index("clip_id")
    is_ok = clips["status"] == ClipStatus.OK.value
    ok = clips[is_ok]
    if ok.empty:
        raise StoreError(
            f"{store.root} holds no clip with status ok; `lite-pipeline failures` lists why"
        )
    class_ids, class_of = np.unique(clips["label"], return_inverse=True)
    group_of = np.zeros(len(clips), np.int64)  # of a failed clip, whose values are NaN, any
    group_of[is_ok] = _video_groups(ok["video_id"])
    counts = np.zeros((len(class_ids), dist.NUM_VALUES), np.int64)
    by_class = np.zeros((len(class_ids), 2, tails.NUM_BINS))
    by_group = {kind: np.zeros((NUM_GROUPS, 2, tails.NUM_BINS)) for kind in (RAW, RELATIVE)}
    # The shards of `clips`: a build that is running may have committed another since.
    shards = np.unique(clips.index // store.config.shard_size)
    for done, shard in enumerate(shards, start=1):
        rows = store.info.rows(int(shard))
        at = clips.index.slice_indexer(rows.start, rows.stop - 1)
        data = store.read_shard(int(shard), embeddings=False, oracle=oracle)
        scores = data.scores.reshape(len(data.scores), -1)
        cam = data.cam.reshape(len(data.cam), -1)
        for label in np.unique(class_of[at]):
            counts[label] += dist.count_scores(scores[class_of[at] == label])
        relative = _over_mean(cam)
        by_group[RAW] += tails.count_values(cam, group_of[at], NUM_GROUPS)
        by_group[RELATIVE] += tails.count_values(relative, group_of[at], NUM_GROUPS)
        by_class += tails.count_values(relative, class_of[at], len(class_ids))
        if on_progress:
            on_progress(done, len(shards))
    labelled = ok[ok["label"] >= 0]
    correct = labelled["prediction"] == labelled["label"]
    classes = _per_class(class_ids, counts, by_class, correct.groupby(labelled["label"]), tail)
    groups = {"all": counts.sum(axis=0)}
    for group, labels in zip(("easy", "hard"), easy_and_hard(classes), strict=True):
        if labels:
            groups[group] = counts[np.isin(class_ids, labels)].sum(axis=0)
    return Analysis(
        num_clips=len(ok),
        num_failed=len(clips) - len(ok),
        num_degenerate=int(ok[degenerate].sum()),
        top1=float(correct.mean()) if len(labelled) else float("nan"),
        pooled=describe(counts.sum(axis=0)),
        tails=_tails(by_group, tail),
        classes=classes,
        trends=class_trends(classes),
        lorenz=_thin_lorenz(counts.sum(axis=0)),
        histogram=_histograms(groups),
        easy_hard_distance=dist.ks_distance(groups["easy"], groups["hard"])
        if "hard" in groups
        else float("nan"),
    )


def easy_and_hard(classes: pd.DataFrame) -> tuple[list[int], list[int]]:
    """The third of the classes with the highest top-1, and the third with the lowest.

    Args:
        classes: of `Analysis`.

    Returns:
        Class ids. Both are empty with fewer than 3 classes that have a top-1, or where the two
        thirds are as accurate as one another.
    """
    known = classes.dropna(subset=["top1"]) if len(classes) else classes
    number = len(known) // 3
    if not number:
        return [], []
    ranked = known.sort_values(["top1", "label"], ascending=[False, True], kind="stable")
    easy, hard = ranked.head(number), ranked.tail(number)
    if easy["top1"].min() <= hard["top1"].max():
        return [], []
    return sorted(easy["label"].tolist()), sorted(hard["label"].tolist())


def describe(counts: np.ndarray) -> dict[str, float]:
    """Inequality of the scores of one distribution, as a flat row.

    Returns:
        `num_tokens`, `zero_share`, `mean`, quantiles `q50` ... `q99.9`, `half_share` (of the
        tokens, with at least half of their clip's best score), `top10_share` and `gini`.
    """
    total = int(counts.sum())
    nan = float("nan")
    return {
        "num_tokens": total,
        "zero_share": float(counts[0] / total) if total else nan,
        "mean": float(counts @ dist.VALUES / total) if total else nan,
        **{f"q{100 * q:g}": dist.quantile(counts, q) for q in QUANTILES},
        "half_share": dist.share_from(counts, HALF),
        "top10_share": dist.top_share(counts, 0.1),
        "gini": dist.gini(counts),
    }


def class_trends(classes: pd.DataFrame, num_draws: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Spearman's rank correlation over the classes of top-1 with each measure of the tail.

    The paper reads "thinner tails" off a histogram of scores, and concludes that fewer tokens are
    essential: that is `half_share`. Value can be less concentrated (`top10_share`, `gini`) or fall
    faster (`tail_shape`) without it, so they may disagree. All are higher for thicker tails.

    Intervals resample the classes. That takes in the noise of each class's measures, whereas
    resampling the videos would add it a second time and pull every correlation towards 0.

    Args:
        classes: of `Analysis`.
        num_draws: resamples.
        seed: of the resampling.

    Returns:
        `measure`, `num_classes`, `spearman`, `low` and `high` (95 %; NaN where all resamples
        agree). No row where fewer than 3 classes have the measure, or all have the same.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for measure in TREND_MEASURES if len(classes) else ():
        known = classes[["top1", measure]].dropna().to_numpy()
        if len(known) < 3 or (known == known[0]).all(axis=0).any():
            continue
        drawn = rng.integers(0, len(known), (len(known), num_draws))
        low, high = interval(spearman(*known[drawn].T)[:, None])[:, 0]
        observed = float(spearman(*known.T[:, None])[0])
        rows.append((measure, len(known), observed, float(low), float(high)))
    return pd.DataFrame(rows, columns=["measure", "num_classes", "spearman", "low", "high"])


def _video_groups(video_ids: pd.Series) -> npt.NDArray[np.int64]:
    """A group for each clip: equally many videos in each, put together by chance."""
    video, names = pd.factorize(video_ids)
    return (np.random.default_rng(0).permutation(len(names)) % NUM_GROUPS)[video]


def _over_mean(cam: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Each clip's (row's) values over its mean positive value; NaN where it has none."""
    positive = cam > 0
    number = positive.sum(axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):
        return cam / (cam.sum(axis=1, keepdims=True, where=positive) / number)


def _tails(by_group: dict[str, npt.NDArray[np.float64]], tail: float) -> pd.DataFrame:
    rows = []
    for values, histograms in by_group.items():
        for share in (tail / part for part in TAIL_PARTS):
            fit = tails.fit_tail(histograms.sum(axis=0), share)
            if fit is not None:
                low, high = tails.shape_interval(histograms, share)
                spread = {"shape_low": low, "shape_high": high}
                rows.append({"values": values, "share": share, **asdict(fit), **spread})
    return pd.DataFrame(rows)


def _per_class(
    class_ids: npt.NDArray[np.int64],
    counts: npt.NDArray[np.int64],
    histograms: npt.NDArray[np.float64],
    correct: Any,
    tail: float,
) -> pd.DataFrame:
    num_clips, top1 = correct.size(), correct.mean()
    rows = []
    for label, own, histogram in zip(class_ids.tolist(), counts, histograms, strict=True):
        if label < 0:
            continue
        fit = tails.fit_tail(histogram, tail)
        rows.append(
            {
                "label": label,
                "num_clips": int(num_clips.get(label, 0)),
                "top1": float(top1.get(label, np.nan)),
                **describe(own),
                "tail_shape": fit.shape if fit else np.nan,
            }
        )
    return pd.DataFrame(rows)


def _histograms(groups: dict[str, npt.NDArray[np.int64]]) -> pd.DataFrame:
    frames = []
    for group, counts in groups.items():
        for scale in ("linear", "log"):
            low, high, share = dist.histogram(counts, log=scale == "log")
            frame = pd.DataFrame({"low": low, "high": high, "share": share})
            frame.insert(0, "scale", scale)
            frame.insert(0, "group", group)
            frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def _thin_lorenz(counts: np.ndarray, points: int = 1000) -> pd.DataFrame:
    tokens, value = dist.lorenz_curve(counts)
    keep = np.unique(np.linspace(0, len(tokens) - 1, points).astype(int))
    return pd.DataFrame({"tokens": tokens[keep], "value": value[keep]})
