"""How classes differ: do easy ones have thinner tails, and how far apart are easy and hard ones?"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from selector.analysis import distribution as dist
from selector.analysis.jackknife import jackknife
from selector.statistics import interval, spearman

TREND_MEASURES = ("half_share", "top10_share", "gini", "tail_shape")


def easy_and_hard(classes: pd.DataFrame) -> tuple[list[int], list[int]]:
    """The third of the classes with the highest top-1, and the third with the lowest.

    Args:
        classes: with `label` and `top1`, NaN where it is not known.

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


def compare_scores(by_group: npt.NDArray[np.int64]) -> pd.DataFrame:
    """How far apart the scores of easy and hard classes are.

    Args:
        by_group: (2, groups, 15361) counts of the easy and of the hard classes' clips, in disjoint
            groups of videos.

    Returns:
        `measure`, `value`, `low`, `high` (95 % jackknife over videos):

        * `ks_distance`, the largest gap between their cumulative shares. It is never negative and
          above 0 by chance, so its interval is not to be read as a test of "no difference";
        * `superiority`, the effect size: the probability that a token of an easy class has a higher
          score than one of a hard class, ties counting half. 0.5 = neither.

        No rows where one of the two has no token.
    """
    rows = []
    if all(counts.any() for counts in by_group):
        per_group = np.moveaxis(by_group, 1, 0)
        for name, measure in (
            ("ks_distance", dist.ks_distance),
            ("superiority", dist.superiority),
        ):

            def statistic(counts: npt.NDArray[np.int64], measure=measure) -> float:  # type: ignore[no-untyped-def]
                return float(measure(counts[0], counts[1]))

            low, high = jackknife(statistic, per_group)
            rows.append((name, statistic(per_group.sum(axis=0)), max(low, 0.0), min(high, 1.0)))
    return pd.DataFrame(rows, columns=["measure", "value", "low", "high"])
