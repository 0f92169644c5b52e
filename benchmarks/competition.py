"""Where the oracle's gain comes from: top-1 by how strongly other actors compete with the label.

    python benchmarks/competition.py --data-root DATA --evaluation OUT

Joins the rows of `lite-pipeline evaluate` on the rendered benchmark with its side file of actors.
The paper's explanation of principle 3 is that some tokens mislead: then the gain of the tokens
that the oracle chooses must be small where nothing competes, and grow with the competition.

`--alone OUT2` compares with an evaluation of the same videos without their competitors:

    lite-pipeline datasets make synthetic --out ALONE --videos 2400 --seed 0 --no-competitors
"""

from __future__ import annotations

import argparse

import numpy as np
import pandas as pd

from datasets_spec.synthetic.actors import NO_ACTION, read_actors
from selector.evaluation.files import Evaluation
from selector.statistics import NORMAL

GROUPS = ((0.0, 0.0), (0.0, 0.5), (0.5, 0.7), (0.7, 0.85), (0.85, 1.0))
"""Ranges of the strongest competitor's salience; the labelled actor's is 1."""


def strongest_rivals(data_root: str, split: str) -> pd.Series:
    """Salience of each video's strongest competitor, 0 without one; indexed by video id."""
    rivals = {
        video_id: max(
            (b.salience for b in bodies if b.actor > 0 and b.action != NO_ACTION), default=0.0
        )
        for video_id, bodies in read_actors(data_root, split).items()
    }
    return pd.Series(rivals, name="rival")


def top1_by_competition(rows: pd.DataFrame, rivals: pd.Series) -> pd.DataFrame:
    """Top-1 in percent per method and keep ratio, one column per range of competition."""
    rows = rows.assign(right=100.0 * (rows["label_rank"] == 0))
    rows = rows.join(rivals, on="video_id")
    columns = {}
    for low, high in GROUPS:
        inside = (rows["rival"] > low) & (rows["rival"] <= high) if high else rows["rival"] == 0
        group = rows[inside]
        name = f"{low:g}-{high:g}" if high else "none"
        name = f"{name} ({group['video_id'].nunique()})"
        columns[name] = group.groupby(["method", "keep_ratio"])["right"].mean()
    return pd.DataFrame(columns).round(1)


def with_and_alone(beside: pd.DataFrame, alone: pd.DataFrame) -> pd.DataFrame:
    """Top-1 in percent of the same videos with and without competitors, and what is over random.

    Args:
        beside: rows of one keep ratio below 1, with `video_id`, `method`, `label_rank`.
        alone: of the videos without competitors.

    Returns:
        Per method: top-1 in both, what it has over `random` in both, and how much more of that
        alone, with its 95 % interval over the videos (paired, normal).
    """
    both = [_by_video(beside), _by_video(alone)]
    videos = both[0].index.intersection(both[1].index)
    both = [right.loc[videos] for right in both]
    gains = [right.sub(right["random"], axis=0) for right in both]
    more = gains[1] - gains[0]
    return pd.DataFrame(
        {
            "beside": both[0].mean(),
            "alone": both[1].mean(),
            "over random": gains[0].mean(),
            "alone, over random": gains[1].mean(),
            "more": more.mean(),
            "+-": NORMAL * more.std(ddof=1) / np.sqrt(len(videos)),
        }
    ).round(1)


def _by_video(rows: pd.DataFrame) -> pd.DataFrame:
    """Right answers in percent, a row a video and a column a method; seeds are averaged."""
    rows = rows.assign(right=100.0 * (rows["label_rank"] == 0))
    return rows.pivot_table(index="video_id", columns="method", values="right", aggfunc="mean")


def main() -> None:
    """Parse, join, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-root", required=True)
    parser.add_argument("--evaluation", required=True)
    parser.add_argument("--keep-ratio", type=float, default=0.5)
    parser.add_argument("--alone", help="evaluation of the same videos without competitors")
    options = parser.parse_args()
    evaluation = Evaluation(options.evaluation)
    columns = ["video_id", "method", "keep_ratio", "label_rank"]
    rows = evaluation.rows(columns)
    if options.alone:
        both = [rows, Evaluation(options.alone).rows(columns)]
        print(f"with competitors and without, at keep ratio {options.keep_ratio}")
        kept = [found[found["keep_ratio"].isin([options.keep_ratio])] for found in both]
        print(with_and_alone(*kept).to_string())
        return
    rows = rows[rows["keep_ratio"].isin([1.0, options.keep_ratio])]
    rivals = strongest_rivals(options.data_root, evaluation.config.split)
    print("top-1 in percent by the salience of the strongest competitor (videos)")
    print(top1_by_competition(rows, rivals).to_string())


if __name__ == "__main__":
    main()
