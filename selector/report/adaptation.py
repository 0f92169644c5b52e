"""Masks a backbone was adapted with against masks it is tested with, as heat maps.

Reads the rows that `benchmarks/adaptation_matrix.py` leaves in `OUT/rows`: one file a training.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from pipeline.errors import StoreError
from selector.report.draw import INK, Picture
from selector.statistics import mean_interval

NONE = "none"
"""The row of the backbone as it is."""
ALL = "all"
"""The row of further training without any mask."""
COLUMNS = (
    *("train", "test", "keep_ratio", "num_seeds", "num_unchanged", "num_videos", "top1"),
    *("gain", "gain_low", "gain_high"),
)


def read_matrix(folder: str | Path) -> pd.DataFrame:
    """The rows that are there, the seeds of a training joined.

    Args:
        folder: what the benchmark's `--out` was.

    Returns:
        `COLUMNS`: `top1` as a share, the mean over the seeds; `gain` on the backbone as it is, on
        the same videos and under the same test, with its 95 % interval over the videos (NaN where
        that row is missing). `full` is all tokens. `num_unchanged` of the trainings kept the
        weights that they began with, as no later ones were better on the held-out videos.

    Raises:
        StoreError: there are no rows, or one is damaged or of other videos.
    """
    paths = sorted(Path(folder).glob("rows/*.json"))
    if not paths:
        raise StoreError(
            f"{folder} holds no rows of an adaptation matrix: python "
            "benchmarks/adaptation_matrix.py --data-root DATA --selector SELECTOR --out "
            f"{folder}"
        )
    unchanged: Counter[str] = Counter()
    right: dict[str, dict[str, list[npt.NDArray[np.float64]]]] = {}
    for path in paths:
        try:
            row = json.loads(path.read_text(encoding="utf-8"))
            number = int(row["videos"])
            unchanged[row["train"]] += row["train"] != NONE and row.get("best_step") == 0
            for test, packed in row["right"].items():
                bits = np.unpackbits(np.frombuffer(bytes.fromhex(packed), np.uint8), count=number)
                own = right.setdefault(str(row["train"]), {}).setdefault(test, [])
                own.append(bits.astype(np.float64))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise StoreError(f"{path} is no row of an adaptation matrix: {error}") from error
    sizes = {len(bits) for tests in right.values() for own in tests.values() for bits in own}
    if len(sizes) > 1:
        raise StoreError(f"{folder} holds rows of {sorted(sizes)} videos, which do not compare")
    rows = []
    for train, tests in right.items():
        for test, own in tests.items():
            mean = np.mean(own, axis=0)
            gain = [float("nan")] * 3
            if test in right.get(NONE, {}):
                gaps = (mean - np.mean(right[NONE][test], axis=0))[:, None]
                low, high = mean_interval(gaps, (-1.0, 1.0))[:, 0]
                gain = [float(gaps.mean()), float(low), float(high)]
                if train == NONE:
                    gain = [0.0, 0.0, 0.0]
            name, _, ratio = test.partition("@")
            counts = (len(own), unchanged[train], len(mean))
            rows.append((train, name, float(ratio), *counts, float(mean.mean()), *gain))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def heat_map(frame: pd.DataFrame, keep_ratio: float) -> Picture:
    """One keep ratio: rows are the masks of the training, columns those of the test.

    Args:
        frame: of `read_matrix`.
        keep_ratio: one of it.
    """
    rows = frame[frame["keep_ratio"] == keep_ratio]
    trained = sorted(rows["train"].unique(), key=lambda name: (name != NONE, name))
    tested = list(rows["test"].unique())
    cells = rows.to_dict("records")
    table = np.full((len(trained), len(tested)), np.nan)
    for row in cells:
        table[trained.index(row["train"]), tested.index(row["test"])] = 100 * row["top1"]
    picture = Picture(height=1.8 + 0.42 * len(trained))
    ax = picture.add_subplot(1, 1, 1)
    least, most = np.nanmin(table), np.nanmax(table)
    light = least + 0.44 * (most - least)  # from here on black is easier to read than white
    ax.imshow(table, cmap="viridis", aspect="auto")
    ax.set_xticks(range(len(tested)), tested, rotation=30, ha="right", color=INK)
    names = [{NONE: "not adapted", ALL: "all tokens"}.get(name, name) for name in trained]
    ax.set_yticks(range(len(trained)), names, color=INK)
    ax.tick_params(length=0, labelcolor=INK)
    ax.set_xlabel("tested with", color=INK)
    ax.set_ylabel("adapted with", color=INK)
    ax.set_title(f"keep ratio {keep_ratio:g}: top-1 %", color=INK, fontsize="medium")
    for spine in ax.spines.values():
        spine.set_visible(False)
    for row in cells:
        x, y = tested.index(row["test"]), trained.index(row["train"])
        value = 100 * row["top1"]
        colour = "#000000" if value > light else "#ffffff"
        text = ax.text(x, y, f"{value:.1f}", ha="center", va="center", color=colour)
        tip = f"adapted with {row['train']}, tested with {row['test']}: {value:.1f} %"
        if row["train"] != NONE and not np.isnan(row["gain"]):
            low, high = 100 * row["gain_low"], 100 * row["gain_high"]
            tip += f", {100 * row['gain']:+.1f} points [{low:+.1f}, {high:+.1f}] by adapting"
        tip += f"; {row['num_seeds']} seeds, {row['num_videos']} videos"
        if row["num_unchanged"]:
            tip += f", {row['num_unchanged']} trainings kept the weights that they began with"
        picture.tip(text, tip)
    return picture


def said(frame: pd.DataFrame) -> list[str]:
    """The best training of every keep ratio, and what it costs at all tokens."""
    adapted = frame[(frame["train"] != NONE) & frame["gain"].notna()]
    if adapted.empty:
        return ["There is no adapted backbone beside the plain one yet, so nothing compares."]
    lines = []
    reduced = frame[frame["test"] != "full"]
    for ratio, rows in sorted(reduced.groupby("keep_ratio"), reverse=True):
        # By what is right and not by what is gained: the worst test has the most to gain.
        best = rows.sort_values("top1").to_dict("records")[-1]
        low, high = 100 * best["gain_low"], 100 * best["gain_high"]
        text = (
            f"At keep ratio {ratio:g} the best of {len(rows)} is {_with(best['train'])}, tested "
            f"with {best['test']}: {100 * best['top1']:.1f} %"
        )
        if best["train"] != NONE:
            text += f", {100 * best['gain']:+.1f} points [{low:+.1f}, {high:+.1f}] by adapting"
        lines.append(f"{text}.")
    for row in adapted[adapted["test"] == "full"].to_dict("records"):
        if row["num_unchanged"] == row["num_seeds"]:
            lines.append(
                f"{_with(row['train']).capitalize()}, the backbone stayed as it was, with every "
                "seed: no later weights were better on the held-out videos."
            )
            continue
        low, high = 100 * row["gain_low"], 100 * row["gain_high"]
        lines.append(
            f"With all tokens, {_with(row['train'])}, top-1 changes by "
            f"{100 * row['gain']:+.1f} points [{low:+.1f}, {high:+.1f}]."
        )
    return lines


def _with(train: str) -> str:
    if train == NONE:
        return "not adapted"
    return "trained on all tokens" if train == ALL else f"adapted with {train} masks"
