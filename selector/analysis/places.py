"""Where value sits in a clip, and whether oracles agree, read shard by shard."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import rankdata

from pipeline.store.reader import Store
from selector.analysis.within import within_videos
from selector.statistics import mean_interval, spearman

OnProgress = Callable[[int, int], None]


@dataclass(frozen=True)
class Places:
    """Mean scores by place, over the ok clips; each clip counts the same.

    Attributes:
        over_space: float64 (y, x), the mean over clips and time.
        over_time: `t`, `mean`, and its 95 % interval over videos, or over groups of them where the
            dataset says some, `low` and `high`.
        edge_value: share of all value on the outermost ring of tokens.
        edge_tokens: share of the tokens that lie there: what chance would give.
    """

    over_space: npt.NDArray[np.float64]
    over_time: pd.DataFrame
    edge_value: float
    edge_tokens: float


def places(
    store: Store, oracle: str | None = None, on_progress: OnProgress = lambda done, total: None
) -> Places:
    """Average the maps of a store.

    Args:
        store: with at least one ok clip.
        oracle: whose maps; None for the first.
        on_progress: called with (shards done, shards in all).
    """
    clips, shards = _committed(store)
    total = np.zeros(store.grid[1:])
    times: list[npt.NDArray[np.float64]] = []
    shown: list[int] = []
    for done, shard in enumerate(shards, start=1):
        data = store.read_shard(shard, embeddings=False, oracle=oracle)
        ok = (data.clips["status"] == "ok").to_numpy()
        scores = data.scores[ok].astype(np.float64)
        total += scores.mean(axis=1).sum(axis=0)
        times.append(scores.mean(axis=(2, 3)))
        shown += data.clips["clip_id"][ok].tolist()
        on_progress(done, len(shards))
    by_video, units = within_videos(clips.loc[shown], np.concatenate(times))
    low, high = mean_interval(by_video, num_draws=500, groups=units)
    edge = np.ones(total.shape, bool)
    edge[1:-1, 1:-1] = False
    whole = total.sum()
    return Places(
        over_space=total / len(shown),
        over_time=pd.DataFrame(
            {"t": range(by_video.shape[1]), "mean": by_video.mean(0), "low": low, "high": high}
        ),
        edge_value=float(total[edge].sum() / whole) if whole else float("nan"),
        edge_tokens=float(edge.mean()),
    )


def agreement(store: Store, on_progress: OnProgress = lambda done, total: None) -> pd.DataFrame:
    """How alike the oracles of a store rank the tokens of a clip.

    Args:
        store: with several oracles.
        on_progress: called with (shards done, shards in all).

    Returns:
        `first`, `second`, `num_clips`, and `spearman`: the mean over clips of the rank correlation
        of their signed maps, with its 95 % interval over videos, or over groups of them where the
        dataset says some, `low` and `high`. A clip whose map is constant orders nothing and is left
        out. No rows where the store has one oracle.
    """
    pairs = list(combinations(store.oracles, 2))
    found: dict[tuple[str, str], list[npt.NDArray[np.float64]]] = {pair: [] for pair in pairs}
    clips, shards = _committed(store)
    shown: list[int] = []
    shards = shards if pairs else []
    for done, shard in enumerate(shards, start=1):
        ranks = {}
        for oracle in store.oracles:
            data = store.read_shard(shard, embeddings=False, oracle=oracle)
            ok = (data.clips["status"] == "ok").to_numpy()
            ranks[oracle] = rankdata(data.cam[ok].reshape(ok.sum(), -1), axis=1)
        shown += data.clips["clip_id"][ok].tolist()
        for pair in pairs:
            found[pair].append(spearman(ranks[pair[0]], ranks[pair[1]]))
        on_progress(done, len(shards))
    rows = []
    for (first, second), parts in found.items():
        each = pd.Series(np.concatenate(parts) if parts else [], index=shown, dtype=float).dropna()
        if len(each):
            by_video, units = within_videos(
                clips.loc[each.index], np.asarray(each, np.float64)[:, None]
            )
            low, high = mean_interval(by_video, (-1.0, 1.0), num_draws=500, groups=units)[:, 0]
            rows.append((first, second, len(each), float(by_video.mean()), low, high))
    return pd.DataFrame(rows, columns=["first", "second", "num_clips", "spearman", "low", "high"])


def _committed(store: Store) -> tuple[pd.DataFrame, list[int]]:
    """Video and unit of the committed clips, by `clip_id`, and the shards that hold these."""
    clips = store.clips(columns=["clip_id", "video_id"], units=True).set_index("clip_id")
    # Not those of `store.shards()`: a build that is running may have committed another since.
    return clips, np.unique(clips.index // store.config.shard_size).tolist()
