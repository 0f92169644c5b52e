"""What a store says about the paper's principles 4 and 5: heavy tails, and how classes differ.

Needs the store alone and reads it shard by shard. What it keeps is histograms, whose size depends
on the number of classes only, and of each clip a few columns of its table and five numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from pipeline.errors import ClipStatus, StoreError
from pipeline.store.reader import Store
from pipeline.strict_json import json_values
from selector.analysis import alternatives, shares, tails
from selector.analysis import distribution as dist
from selector.analysis.classes import class_trends, compare_scores, easy_and_hard
from selector.analysis.jackknife import NUM_GROUPS, video_groups
from selector.analysis.within import over

QUANTILES = (0.5, 0.9, 0.99, 0.999)
HALF = 0.5
"""Score from which a token counts as important: half of its clip's best token."""

TAIL_PARTS = (1, 2, 5)
"""The tail is fitted whole, its upper half and its upper fifth: a Pareto keeps its shape."""

RAW, RELATIVE = "raw", "relative"

_EASY, _HARD, _OTHER = range(3)


@dataclass(frozen=True)
class Analysis:
    """Everything `lite-pipeline analyze` prints.

    Attributes:
        num_clips: clips with status `ok` that were counted.
        num_failed: committed clips left out.
        num_degenerate: counted clips whose scores are all zero.
        top1: accuracy of the unreduced model over the counted clips with a label; NaN without.
        over: what intervals are over, but for those of `trends`, as a sentence has it.
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
        shares: what the best 1, 5, 10 and 20 % of the tokens hold, and the Gini coefficient, of all
            tokens together and within videos, overall and of each class; see `shares.table`.
        videos: the same of each video; see `shares.of_videos`.
        power_laws: `values`, as in `tails`, and the columns of `alternatives.PowerLaw`: the cut-off
            from which a power law fits best, and its exponent.
        alternatives: `values` and the columns of `alternatives.Ratio`: that power law against
            others above the same cut-off.
        classes: one row per class: `label`, `num_clips`, `top1`, the columns of `describe`, and
            `tail_shape`, the shape of the relative values at the largest share (NaN: too few).
        trends: whether easier classes have thinner tails; see `class_trends`.
        lorenz: `tokens` and `value`, cumulative shares from 0 to 1, about 1000 points.
        histogram: `group` (`all`; `easy` and `hard`: see `easy_and_hard`), `scale` (`linear` or
            `log`), `low`, `high` and `share` of the group's tokens in [low, high), the last bin
            with its end; see `dist.histogram`.
        easy_hard: distance and effect size of easy and hard classes' scores; see
            `classes.compare_scores`. No rows where there are no such groups.
    """

    num_clips: int
    num_failed: int
    num_degenerate: int
    top1: float
    over: str
    pooled: dict[str, float]
    shares: pd.DataFrame
    videos: pd.DataFrame
    tails: pd.DataFrame
    power_laws: pd.DataFrame
    alternatives: pd.DataFrame
    classes: pd.DataFrame
    trends: pd.DataFrame
    lorenz: pd.DataFrame
    histogram: pd.DataFrame
    easy_hard: pd.DataFrame

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, all but `videos`; NaN becomes None."""
        plain = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "videos"}
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
    clips = store.clips(columns=columns, units=True).set_index("clip_id")
    is_ok = clips["status"] == ClipStatus.OK.value
    ok = clips[is_ok]
    if ok.empty:
        raise StoreError(
            f"{store.root} holds no clip with status ok; `lite-pipeline failures` lists why"
        )
    labelled = ok[ok["label"] >= 0]
    correct = labelled["prediction"] == labelled["label"]
    by_label = correct.groupby(labelled["label"])
    top1 = by_label.mean().rename("top1").rename_axis("label").reset_index()
    class_ids, class_of = np.unique(clips["label"], return_inverse=True)
    group_of = np.zeros(len(clips), np.int64)  # of a failed clip, whose values are NaN, any
    group_of[is_ok] = video_groups(ok["unit"])
    kind_of = np.full(len(clips), _OTHER)
    for kind, labels in zip((_EASY, _HARD), easy_and_hard(top1), strict=True):
        kind_of[clips["label"].isin(labels)] = kind
    by_class = np.zeros((len(class_ids), dist.NUM_VALUES), np.int64)
    by_group = np.zeros((3 * NUM_GROUPS, dist.NUM_VALUES), np.int64)  # of each kind
    tail_by_class = np.zeros((len(class_ids), 2, tails.NUM_BINS))
    tail_by_group = {kind: np.zeros((NUM_GROUPS, 2, tails.NUM_BINS)) for kind in (RAW, RELATIVE)}
    of_clip = np.full((len(clips), len(shares.MEASURES)), np.nan)
    # The shards of `clips`: a build that is running may have committed another since.
    shards = np.unique(clips.index // store.config.shard_size)
    for done, shard in enumerate(shards, start=1):
        rows = store.info.rows(int(shard))
        at = clips.index.slice_indexer(rows.start, rows.stop - 1)
        data = store.read_shard(int(shard), embeddings=False, oracle=oracle)
        scores = data.scores.reshape(len(data.scores), -1)
        cam = data.cam.reshape(len(data.cam), -1)
        of_clip[at] = shares.of_clips(scores)
        dist.count_into(by_class, class_of[at], scores)
        dist.count_into(by_group, kind_of[at] * NUM_GROUPS + group_of[at], scores)
        relative = _over_mean(cam)
        tail_by_group[RAW] += tails.count_values(cam, group_of[at], NUM_GROUPS)
        tail_by_group[RELATIVE] += tails.count_values(relative, group_of[at], NUM_GROUPS)
        tail_by_class += tails.count_values(relative, class_of[at], len(class_ids))
        if on_progress:
            on_progress(done, len(shards))
    kinds = by_group.reshape(3, NUM_GROUPS, -1)
    pooled = by_class.sum(axis=0)
    groups = {"all": pooled, "easy": kinds[_EASY].sum(axis=0), "hard": kinds[_HARD].sum(axis=0)}
    classes = _per_class(class_ids, by_class, tail_by_class, by_label, tail)
    videos = shares.of_videos(clips["video_id"], clips["label"], of_clip)
    unit_of = clips.drop_duplicates("video_id").set_index("video_id")["unit"]
    units = videos["video_id"].map(unit_of).to_numpy(object)
    laws, others = _power_laws(tail_by_group)
    return Analysis(
        num_clips=len(ok),
        num_failed=len(clips) - len(ok),
        num_degenerate=int(ok[degenerate].sum()),
        top1=float(correct.mean()) if len(labelled) else float("nan"),
        over=over(store),
        pooled=describe(pooled),
        shares=shares.table(kinds.sum(axis=0), videos, units),
        videos=videos,
        tails=_tails(tail_by_group, tail),
        power_laws=laws,
        alternatives=others,
        classes=classes,
        trends=class_trends(classes),
        lorenz=_thin_lorenz(pooled),
        histogram=_histograms({name: counts for name, counts in groups.items() if counts.any()}),
        easy_hard=compare_scores(kinds[[_EASY, _HARD]]),
    )


def describe(counts: np.ndarray) -> dict[str, float]:
    """Inequality of the scores of one distribution, as a flat row.

    Returns:
        `num_tokens`, `zero_share`, `mean`, quantiles `q50` ... `q99.9`, `half_share` (of the
        tokens, with at least half of their clip's best score), `top1_share` ... `top20_share` and
        `gini`.
    """
    total = int(counts.sum())
    nan = float("nan")
    return {
        "num_tokens": total,
        "zero_share": float(counts[0] / total) if total else nan,
        "mean": float(counts @ dist.VALUES / total) if total else nan,
        **{f"q{100 * q:g}": dist.quantile(counts, q) for q in QUANTILES},
        "half_share": dist.share_from(counts, HALF),
        **shares.top_shares(counts),
        "gini": dist.gini(counts),
    }


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


def _power_laws(by_group: dict[str, npt.NDArray[np.float64]]) -> tuple[pd.DataFrame, pd.DataFrame]:
    laws, others = [], []
    for values, histograms in by_group.items():
        law = alternatives.fit_power_law(histograms)
        if law is not None:
            laws.append({"values": values, **asdict(law)})
            ratios = alternatives.compare(histograms, law)
            others += [{"values": values, **asdict(ratio)} for ratio in ratios]
    return pd.DataFrame(laws), pd.DataFrame(others)


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
