"""The paper's figures from a store or an evaluation of any dataset, each saying what it lacks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.errors import ClipStatus, ConfigError, StoreError
from pipeline.store.reader import Store
from selector.analysis.store import analyze_store
from selector.analysis.videos import Videos
from selector.evaluation.report.summary import Summary
from selector.report import draw
from selector.report.accuracy import accuracy_frame
from selector.report.strips import bare_strip, choose, strip

if TYPE_CHECKING:
    from selector.deploy.model import LiteModel

FIGURES = {
    1: "accuracy against GFLOPs",
    2: "accuracy against the keep ratio",
    3: "histogram of token values, and of easy and hard classes",
    4: "the oracle's map of the clip in the middle",
    5: "what classes lose at half of the tokens under random selection",
    7: "the tokens that the model keeps, beside the oracle's and random ones",
}
"""Number to what is drawn. Figure 6 of the paper is a drawing of the method."""

EVALUATE = (
    "lite-pipeline evaluate --data-root DATA --out EVAL --selector SELECTOR --methods "
    "random,oracle,lite"
)
BUILD = "lite-pipeline build-oracle --data-root DATA --store STORE"


def evaluation_figure(number: int, summary: Summary | None) -> draw.Picture:
    """Figure 1, 2 or 5.

    Raises:
        ConfigError: there is no evaluation, or it lacks the rows; says how to get them.
    """
    if summary is None:
        raise ConfigError(f"Figure {number} needs an evaluation, --eval DIR: {EVALUATE}")
    frame = accuracy_frame(summary)
    if number == 1:
        return draw.accuracy(frame)
    if number == 2:  # that of an adaptive budget is its base's, and not what it keeps
        adaptive = {setting.method for setting in summary.adaptive}
        return draw.accuracy(frame[~frame["method"].isin(adaptive)], "keep_ratio")
    found = [trend for trend in summary.classes if trend.method == "random"]
    if not found:
        raise ConfigError(
            f"Figure 5 needs random at keep ratio 0.5, over 3 classes or more, which {summary.out} "
            "lacks: lite-pipeline evaluate --data-root DATA --out EVAL --methods random "
            "--keep-ratios 1,.5"
        )
    [trend] = found
    names = dict(enumerate(summary.label_names))
    labels = [names.get(i, f"class {i}") for i in trend.class_ids]
    return draw.class_drop(trend.accuracy, trend.drop, labels, f"random at {trend.keep_ratio:g}")


def store_figure(
    number: int,
    store: Store | None,
    *,
    data_root: str | None = None,
    model: LiteModel | None = None,
    oracle: str | None = None,
) -> draw.Picture:
    """Figure 3, 4 or 7.

    Raises:
        ConfigError: the store, the videos or the model are not given; says how to get them.
        StoreError: the store has no map.
        DecodeError: the video of the clip that is drawn.
    """
    if store is None:
        raise ConfigError(f"Figure {number} needs a store, --store DIR: {BUILD}")
    if number == 3:
        histogram = analyze_store(store, oracle=oracle).histogram
        return draw.histogram(histogram, list(histogram["group"].unique()))
    clips = store.clips(columns=["clip_id", "true_prob"], status=ClipStatus.OK.value)
    if clips.empty:
        raise StoreError(f"{store.root} has no clip with a map: lite-pipeline failures says why")
    if number == 7 and (data_root is None or model is None):
        raise ConfigError(
            "Figure 7 needs the videos and a model, --data-root DATA --model SELECTOR: "
            "lite-pipeline train-selector --store STORE --out SELECTOR"
        )
    chosen = choose(clips)
    why = "median" if "median" in chosen else next(iter(chosen))
    if data_root is None:
        return draw.film_strip(bare_strip(store, chosen[why], why, oracle))
    return draw.film_strip(strip(store, chosen[why], why, Videos(store, data_root), model, oracle))
