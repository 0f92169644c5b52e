"""LITE++ after the fact: mixes the stored rows of `lite` at two budgets by its confidence.

The confidence is the backbone's own, on the smallest keep ratio that was evaluated; thresholds are
picked on one half of the videos and judged on the other, both ways round, so that no video sets the
thresholds it is judged by.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from selector.budget import small_ratio
from selector.calibration import Goal, calibrate_thresholds
from selector.evaluation.folder import EvaluationInfo
from selector.evaluation.layout import TOP
from selector.evaluation.outcomes import VideoOutcomes
from selector.evaluation.table import Entry
from selector.split import halves

METHOD = "lite++"
MAX_LOSS = 0.006
"""Top-1, as a share, that the thresholds may cost on the videos they are picked on."""


@dataclass(frozen=True, kw_only=True)
class AdaptiveResult:
    """One base ratio made adaptive."""

    entry: Entry
    small_ratio: float
    """Keep ratio of the easy and the hopeless."""
    confidence_ratio: float
    """Keep ratio that the confidence comes from."""
    share_small: float
    """Share of the videos at the small budget."""
    thresholds: tuple[tuple[float, float], ...]
    """(alpha, beta) of each half."""


def adaptive_results(
    outcomes: VideoOutcomes, info: EvaluationInfo, max_loss: float = MAX_LOSS
) -> list[AdaptiveResult]:
    """LITE++ from every base ratio whose rows are there, base ratios descending.

    A budget is set per video, for all its views, as in the paper. It needs `lite` at the base, at
    the paper's small ratio for that base, and at a smaller one for the confidence.
    """
    at = {c.keep_ratio: i for i, c in enumerate(outcomes.conditions) if c.method == "lite"}
    if not at or len(outcomes.video_ids) < 2:
        return []
    tiny = min(at)
    return [
        _adapt(outcomes, info, at, base, tiny, max_loss)
        for base in sorted(at, reverse=True)
        if tiny < small_ratio(base) < base and small_ratio(base) in at
    ]


def _adapt(
    outcomes: VideoOutcomes,
    info: EvaluationInfo,
    at: dict[float, int],
    base: float,
    tiny: float,
    max_loss: float,
) -> AdaptiveResult:
    small = small_ratio(base)
    i_base, i_small, i_tiny = at[base], at[small], at[tiny]
    gmacs_base, gmacs_small = info.gmacs[i_base], info.gmacs[i_small]
    assert gmacs_base is not None
    assert gmacs_small is not None
    # Embedding and ranking are done anyway; the confidence adds the blocks on its few tokens.
    gmacs_confidence = info.gmacs_backbone[i_tiny] - info.gmacs_embed
    confidence, rank = outcomes.confidence[:, i_tiny], outcomes.label_rank
    half = halves(outcomes.video_ids)
    is_small = np.zeros(len(confidence), np.bool_)
    thresholds = []
    for judged in (False, True):
        pick, judge = half != judged, half == judged
        if not pick.any():
            continue
        alpha, beta, _ = calibrate_thresholds(
            confidence[pick],
            rank[pick, i_small] == 0,
            rank[pick, i_base] == 0,
            gmacs_small=gmacs_small,
            gmacs_base=gmacs_base,
            gmacs_confidence=gmacs_confidence,
            goal=Goal(max_loss=max_loss),
        )
        is_small[judge] = (confidence[judge] < alpha) | (confidence[judge] > beta)
        thresholds.append((alpha, beta))
    mixed = np.where(is_small, rank[:, i_small], rank[:, i_base])
    share = float(is_small.mean())

    def mean(small_value: float, base_value: float) -> float:
        return share * small_value + (1 - share) * base_value

    alone = (info.gmacs_backbone[i_small], info.gmacs_backbone[i_base])
    entry = Entry(
        method=METHOD,
        keep_ratio=base,
        num_kept=mean(info.num_kept[i_small], info.num_kept[i_base]),
        gmacs=mean(gmacs_small, gmacs_base) + gmacs_confidence,
        gmacs_backbone=mean(*alone),
        clips_per_s=None,
        top1=(mixed == 0).astype(np.float64)[:, None],
        top5=(mixed < TOP).astype(np.float64)[:, None],
    )
    return AdaptiveResult(
        entry=entry,
        small_ratio=small,
        confidence_ratio=tiny,
        share_small=share,
        thresholds=tuple(thresholds),
    )
