"""Is the order of the methods the same on another backbone, and do the best tokens beat random?

    python benchmarks/method_order.py shipped=OUT other=OUT2 third=OUT3

Each folder is an evaluation of the same videos and methods with another backbone, as
`benchmarks/all_methods.py` makes them. Rank correlations are over the methods that both have at a
budget, oracles apart; intervals are bootstraps over the videos that all have. Resampling adds its
own noise to the order, so an interval of a correlation lies too low rather than too high.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from itertools import combinations

import numpy as np
import pandas as pd

from pipeline.errors import ClipStatus
from selector.evaluation.config import FULL
from selector.evaluation.files import Evaluation
from selector.statistics import draws, interval, mean_interval, spearman

COLUMNS = ["video_id", "status", "method", "keep_ratio", "label_rank"]
Tables = Mapping[str, pd.DataFrame]


def read_right(folder: str) -> pd.DataFrame:
    """Whether each video was right, mean over seeds and views: videos by (keep ratio, method)."""
    rows = Evaluation(folder).rows(COLUMNS)
    rows = rows[(rows["status"] == ClipStatus.OK) & rows["keep_ratio"].notna()]
    rows = rows.assign(right=(rows["label_rank"] == 0).astype(float))
    found = rows.pivot_table("right", "video_id", ["keep_ratio", "method"], aggfunc="mean")
    return found.dropna(axis=0)


def common_videos(tables: Tables) -> dict[str, pd.DataFrame]:
    """The tables on the videos that all of them have, in one order."""
    ids = sorted(set.intersection(*(set(table.index) for table in tables.values())))
    return {name: table.loc[ids] for name, table in tables.items()}


def print_top1(tables: Tables, against: str) -> None:
    """Top-1 and the difference to one method, of every method, budget and backbone."""
    for ratio in _ratios(tables):
        print(f"\n| cost of {ratio:g} of the tokens | {' | '.join(tables)} |")
        print("|---" * (len(tables) + 1) + "|")
        methods = dict.fromkeys(m for t in tables.values() for r, m in t.columns if r == ratio)
        for method in sorted(methods):
            cells = [_cell(table, ratio, method, against) for table in tables.values()]
            print(f"| {method} | {' | '.join(cells)} |")


def _cell(table: pd.DataFrame, ratio: float, method: str, against: str) -> str:
    if (ratio, method) not in table.columns:
        return ""
    text = f"{100 * table[ratio, method].mean():.1f}"
    if method in (against, FULL):
        return text
    gap = (table[ratio, method] - table[ratio, against]).to_numpy()[:, None]
    low, high = 100 * mean_interval(gap, (-1.0, 1.0))[:, 0]
    return f"{text}, {100 * gap.mean():+.1f} [{low:+.1f}, {high:+.1f}]"


def print_change(tables: Tables, against: str) -> None:
    """What a method is above another on the first backbone, less what it is so on the second."""
    one, other = list(tables)[:2]
    ratios = _ratios(tables)
    print(f"\n| against {against}: {one} less {other} | {' | '.join(f'{r:g}' for r in ratios)} |")
    print("|---" * (len(ratios) + 1) + "|")
    first, second = tables[one], tables[other]
    shared = [column for column in first.columns if column in second.columns]
    for method in sorted({m for _, m in shared} - {FULL, against}):
        cells = []
        for ratio in ratios:
            if (ratio, method) not in shared:
                cells.append("")
                continue
            gaps = [table[ratio, method] - table[ratio, against] for table in (first, second)]
            change = (gaps[0] - gaps[1]).to_numpy()[:, None]
            low, high = 100 * mean_interval(change, (-2.0, 2.0))[:, 0]
            cells.append(f"{100 * change.mean():+.1f} [{low:+.1f}, {high:+.1f}]")
        print(f"| {method} | {' | '.join(cells)} |")


def print_order(tables: Tables) -> None:
    """Spearman's correlation of two backbones' orders at every budget, and over all together."""
    print("\n| budget | backbones | methods | rank correlation | order of the first |")
    print("|---|---|---|---|---|")
    for ratio in _ratios(tables):
        for one, other in combinations(tables, 2):
            a, b = tables[one], tables[other]
            methods = [m for r, m in a.columns if r == ratio and (r, m) in b.columns]
            methods = [m for m in methods if m != FULL and not m.startswith("oracle")]
            if len(methods) < 3:
                continue
            columns = pd.MultiIndex.from_product([[ratio], methods])
            low, middle, high = correlation(a[columns].to_numpy(), b[columns].to_numpy())
            order = a[columns].mean().sort_values(ascending=False).index.get_level_values(1)
            print(
                f"| {ratio:g} | {one}, {other} | {len(methods)} | {middle:+.2f} "
                f"[{low:+.2f}, {high:+.2f}] | {' > '.join(order)} |"
            )


def correlation(one: np.ndarray, other: np.ndarray) -> tuple[float, float, float]:
    """Spearman's correlation of the columns' means: low, observed, high.

    Args:
        one: (V, M) right or wrong, of a backbone's methods.
        other: (V, M) of another's, on the same videos.
    """
    observed = spearman(one.mean(0, keepdims=True), other.mean(0, keepdims=True))[0]
    samples = np.concatenate([spearman(w @ one, w @ other) for w in draws(len(one))])
    low, high = interval(samples[:, None])[:, 0]
    return float(low), float(observed), float(high)


def _ratios(tables: Tables) -> list[float]:
    shared = set.intersection(*({r for r, _ in table.columns} for table in tables.values()))
    return sorted((ratio for ratio in shared if ratio < 1), reverse=True)


def main() -> None:
    """Parse, read, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("evaluations", nargs="+", metavar="NAME=OUT")
    parser.add_argument("--against", default="random")
    options = parser.parse_args()
    folders = dict(text.split("=", 1) for text in options.evaluations)
    tables = common_videos({name: read_right(folder) for name, folder in folders.items()})
    full = {name: f"{100 * table[1.0, FULL].mean():.1f}" for name, table in tables.items()}
    videos = len(next(iter(tables.values())))
    print(f"{videos} videos; all tokens: {', '.join(f'{n} {value}' for n, value in full.items())}")
    print_top1(tables, options.against)
    if len(tables) > 1:
        print_change(tables, options.against)
    print_order(tables)


if __name__ == "__main__":
    main()
