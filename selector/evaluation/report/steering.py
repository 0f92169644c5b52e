"""How far a map moves the model to whatever class it is of: the control of an oracle's gain.

`oracle-second` keeps what speaks for the class that the full model finds second. Where the full
model is right, that can flip the answer; where it is wrong and the label is second, the same map is
the true label's, and can repair it. If maps flip as easily as they repair, at like distances of the
two classes, then what an oracle gains is steering and not noise that was dropped.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from pipeline.errors import ClipStatus
from selector.evaluation.files import Evaluation
from selector.methods.names import ORACLE_SECOND, ORACLE_WRONG
from selector.methods.rank.oracle import wrong_class
from selector.methods.registry import parse_method

GAPS = (0.0, 0.5, 1.0, 2.0, float("inf"))
"""Bounds of what the full model's first logit is above its second."""
_COLUMNS = (
    "video_id", "segment", "crop", "label", "status", "prediction", "top5", "confidence",
    "second_prob",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Steering:
    """What one control did at one keep ratio; tuples are by gap, and all views at the end."""

    method: str
    keep_ratio: float
    num_right: tuple[int, ...]
    """Views that the full model has right."""
    flipped: tuple[int, ...]
    """Those of them that were then given the class of the map."""
    num_second: tuple[int, ...]
    """Views that it has wrong, and the map is of the label; none for `oracle-wrong`."""
    repaired: tuple[int, ...]
    """Those of them that were then right."""


def steering(evaluation: Evaluation, video_ids: Collection[str]) -> list[Steering]:
    """One entry per control and keep ratio, seeds counted together.

    Args:
        evaluation: finished or not.
        video_ids: videos that count; all their views do that worked.
    """
    conditions, names = evaluation.config.conditions, evaluation.config.names
    controls = {str(n) for n in names if n.name in (ORACLE_SECOND, ORACLE_WRONG) and not n.then}
    columns = [i for i, condition in enumerate(conditions) if condition.method in controls]
    counts: dict[tuple[str, float], npt.NDArray[np.int64]] = {}
    for shard in evaluation.shards() if columns else ():
        rows = evaluation.read_shard(shard, _COLUMNS).to_pandas()
        full = rows.iloc[:: len(conditions)]
        use = full["video_id"].isin(video_ids) & (full["status"] == ClipStatus.OK)
        for column in columns:
            method, seed, ratio = conditions[column]
            assert ratio is not None  # an oracle's budget is set
            then = rows.iloc[column :: len(conditions)]
            both = use.to_numpy() & (then["status"] == ClipStatus.OK).to_numpy()
            found = _count(
                full[both],
                then["prediction"].to_numpy()[both],
                len(evaluation.info.label_names),
                seed if parse_method(method).name == ORACLE_WRONG else None,
            )
            counts[method, ratio] = counts.get((method, ratio), 0) + found
    return [
        Steering(
            method=method,
            keep_ratio=ratio,
            num_right=tuple(found[0].tolist()),
            flipped=tuple(found[1].tolist()),
            num_second=tuple(found[2].tolist()),
            repaired=tuple(found[3].tolist()),
        )
        for (method, ratio), found in counts.items()
    ]


def _count(
    full: pd.DataFrame, then: npt.NDArray[np.int16], num_classes: int, seed: int | None
) -> npt.NDArray[np.int64]:
    """Right, flipped, second and repaired by gap and in all, (4, gaps + 1).

    Args:
        full: rows of the full model, (n,).
        then: (n,) prediction under the control.
        num_classes: of the backbone.
        seed: of a wrong class; None for the second.
    """
    label, first = full["label"].to_numpy(), full["prediction"].to_numpy()
    if seed is None:
        target = np.array([top[1] for top in full["top5"]], np.int64)
    else:
        clips = zip(full["video_id"], full["segment"], full["crop"], label, first, strict=True)
        drawn = [wrong_class((seed, *c[:3]), [int(x) for x in c[3:]], num_classes) for c in clips]
        target = np.array(drawn, np.int64)
    with np.errstate(divide="ignore"):  # a second class of no probability is infinitely far
        gap = np.log(full["confidence"].to_numpy(np.float64) / full["second_prob"].to_numpy())
    right, second, reached = first == label, target == label, then == target
    groups = np.stack([right, right & reached, second, second & reached])
    at = np.digitize(gap, GAPS[1:-1])
    by_gap = [groups[:, at == i].sum(axis=1) for i in range(len(GAPS) - 1)]
    return np.stack([*by_gap, groups.sum(axis=1)], axis=1)
