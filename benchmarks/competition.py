"""Where the oracle's gain comes from: top-1 by how strongly other actors compete with the label.

    python benchmarks/competition.py --data-root DATA --evaluation OUT

Joins the rows of `lite-pipeline evaluate` on the rendered benchmark with its side file of actors.
The paper's explanation of principle 3 is that some tokens mislead: then the gain of the tokens
that the oracle chooses must be small where nothing competes, and grow with the competition.
"""

from __future__ import annotations

import argparse

import pandas as pd

from datasets_spec.synthetic.actors import NO_ACTION, read_actors
from selector.evaluation.files import Evaluation

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


def main() -> None:
    """Parse, join, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-root", required=True)
    parser.add_argument("--evaluation", required=True)
    parser.add_argument("--keep-ratio", type=float, default=0.5)
    options = parser.parse_args()
    evaluation = Evaluation(options.evaluation)
    rows = evaluation.rows(["video_id", "method", "keep_ratio", "label_rank"])
    rows = rows[rows["keep_ratio"].isin([1.0, options.keep_ratio])]
    rivals = strongest_rivals(options.data_root, evaluation.config.split)
    print("top-1 in percent by the salience of the strongest competitor (videos)")
    print(top1_by_competition(rows, rivals).to_string())


if __name__ == "__main__":
    main()
