"""What a store says about the paper's principles 4 and 5: heavy tails, and how classes differ.

Needs the store alone, reads it shard by shard, and keeps counts of float16 values only, so memory
does not grow with the dataset.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from pipeline.errors import ClipStatus, StoreError
from pipeline.store.reader import Store
from selector import distribution as dist

QUANTILES = (0.5, 0.9, 0.99, 0.999)


@dataclass(frozen=True)
class Analysis:
    """Everything `lite-pipeline analyze` prints.

    Attributes:
        num_clips: clips with status `ok` that were counted.
        num_failed: committed clips left out.
        num_degenerate: counted clips whose scores are all zero.
        top1: accuracy of the unreduced model over the counted clips with a label; NaN without.
        pooled: inequality of all tokens together; see `describe`.
        classes: one row per class: `label`, `num_clips`, `top1` and the columns of `describe`.
        lorenz: `tokens` and `value`, cumulative shares from 0 to 1, about 1000 points.
    """

    num_clips: int
    num_failed: int
    num_degenerate: int
    top1: float
    pooled: dict[str, float]
    classes: pd.DataFrame
    lorenz: pd.DataFrame

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; NaN becomes None."""
        plain = asdict(self)
        for name in ("classes", "lorenz"):
            frame: pd.DataFrame = plain[name]
            plain[name] = frame.astype(object).where(frame.notna(), None).to_dict("records")
        return {key: _no_nan(value) for key, value in plain.items()} | {
            "pooled": {key: _no_nan(value) for key, value in self.pooled.items()}
        }


def analyze_store(
    store: Store, tail: float = 0.1, on_progress: Callable[[int, int], None] | None = None
) -> Analysis:
    """Count every score of the committed shards, pooled and per class.

    Args:
        store: opened by `pipeline.open_store`.
        tail: share of the positive scores that the tail fit uses.
        on_progress: called with (shards done, shards in all).

    Raises:
        StoreError: no committed clip has status `ok`.
    """
    columns = ["clip_id", "label", "status", "prediction", "degenerate"]
    clips = store.clips(columns=columns).set_index("clip_id")
    ok = clips[clips["status"] == ClipStatus.OK.value]
    if ok.empty:
        raise StoreError(
            f"{store.root} holds no clip with status ok; `lite-pipeline failures` lists why"
        )
    shards = store.shards()
    counts: dict[int, np.ndarray] = {}
    for done, shard in enumerate(shards, start=1):
        rows = store.info.rows(shard)
        scores = np.asarray(store.scores[rows])
        labels = clips["label"].loc[rows.start : rows.stop - 1].to_numpy()
        for label in np.unique(labels):
            counted = dist.count_scores(scores[labels == label])
            counts[int(label)] = counts.get(int(label), 0) + counted
        if on_progress:
            on_progress(done, len(shards))
    pooled = np.sum(list(counts.values()), axis=0)
    labelled = ok[ok["label"] >= 0]
    correct = labelled["prediction"] == labelled["label"]
    return Analysis(
        num_clips=len(ok),
        num_failed=len(clips) - len(ok),
        num_degenerate=int(ok["degenerate"].sum()),
        top1=float(correct.mean()) if len(labelled) else float("nan"),
        pooled=describe(pooled, tail),
        classes=_per_class(counts, labelled["label"], correct, tail),
        lorenz=_thin_lorenz(pooled),
    )


def describe(counts: np.ndarray, tail: float = 0.1) -> dict[str, float]:
    """Inequality and tail of one distribution, as a flat row.

    Returns:
        `num_tokens`, `zero_share`, `mean`, quantiles `q50` ... `q99.9`, `top10_share`, `gini`, and
        of the tail fit (NaN where there is none) `tail_threshold`, `tail_alpha`, `tail_log_ratio`
        (above 0: Pareto fits better than exponential) and `tail_vuong`.
    """
    total = int(counts.sum())
    fit = dist.fit_tail(counts, tail)
    nan = float("nan")
    return {
        "num_tokens": total,
        "zero_share": float(counts[0] / total) if total else nan,
        "mean": float(counts @ dist.VALUES / total) if total else nan,
        **{f"q{100 * q:g}": dist.quantile(counts, q) for q in QUANTILES},
        "top10_share": dist.top_share(counts, 0.1),
        "gini": dist.gini(counts),
        "tail_threshold": fit.threshold if fit else nan,
        "tail_alpha": fit.alpha if fit else nan,
        "tail_log_ratio": fit.log_ratio if fit else nan,
        "tail_vuong": fit.vuong if fit else nan,
    }


def _per_class(
    counts: dict[int, np.ndarray], labels: pd.Series, correct: pd.Series, tail: float
) -> pd.DataFrame:
    rows = [
        {
            "label": label,
            "num_clips": int((labels == label).sum()),
            "top1": float(correct[labels == label].mean()),
            **describe(counts[label], tail),
        }
        for label in sorted(counts)
        if label >= 0
    ]
    return pd.DataFrame(rows)


def _thin_lorenz(counts: np.ndarray, points: int = 1000) -> pd.DataFrame:
    tokens, value = dist.lorenz_curve(counts)
    keep = np.unique(np.linspace(0, len(tokens) - 1, points).astype(int))
    return pd.DataFrame({"tokens": tokens[keep], "value": value[keep]})


def _no_nan(value: Any) -> Any:
    return None if isinstance(value, float) and np.isnan(value) else value
