"""Our lines beside the paper's: change of top-1 against cost, both relative to the full model.

In these units models of other datasets and sizes stand on the same axes.
"""

from __future__ import annotations

import math

import pandas as pd

from selector.evaluation.config import FULL
from selector.evaluation.report.published import PUBLISHED
from selector.report.draw import INK, Picture, looks

TABLES = {1: "SSv2", 2: "K400", 3: "SSv2", 4: "SSv2"}
"""Tables of the paper with VideoMAE-B, to the dataset's short name."""


def published_points() -> pd.DataFrame:
    """What the paper prints of VideoMAE-B with fewer tokens.

    Returns:
        `dataset`, `model`, `cost` (share of the full model's GFLOPs), `change` (of top-1, in
        points against the full model), `gflops` and `top1` (percent), as printed. Lines that two
        tables have stand once.
    """
    rows = []
    for table, dataset in TABLES.items():
        lines = [line for line in PUBLISHED[table][1] if line.method is not None]
        full = next(
            line
            for number, name in TABLES.items()
            if name == dataset
            for line in PUBLISHED[number][1]
            if line.method == FULL
        )
        rows += [
            (
                dataset,
                line.model,
                line.gflops / full.gflops,
                line.top1 - full.top1,
                line.gflops,
                line.top1,
            )
            for line in lines
            if line.method != FULL
        ]
    columns = ["dataset", "model", "cost", "change", "gflops", "top1"]
    return pd.DataFrame(rows, columns=columns).drop_duplicates(["dataset", "model"])


def relative(frame: pd.DataFrame, methods: list[str]) -> Picture:
    """The picture; the published points are its hidden layer.

    Args:
        frame: of `accuracy_frame`, with the full model.
        methods: to draw.
    """
    full = frame[frame["method"] == FULL].iloc[0]
    shown = frame[frame["method"].isin(methods) & (frame["method"] != FULL)]
    shown = shown.assign(
        cost=shown["gmacs"].fillna(shown["gmacs_backbone"]) / full["gmacs"],
        change=100 * (shown["top1"] - full["top1"]),
    )
    picture = Picture(height=3.8 + 0.2 * shown["method"].nunique())
    ax = picture.axes_of("cost, % of the full model's GFLOPs", "top-1 against all tokens, points")
    ax.axhline(0, color=INK, linewidth=0.8)
    look = looks(frame.loc[frame["method"].isin(methods), "method"].unique())
    for method, rows in shown.groupby("method", sort=False):
        colour, marker = look[str(method)]
        rows = rows.sort_values("cost")
        ax.plot(100 * rows["cost"], rows["change"], linewidth=1.2, color=colour)
        ax.plot([], [], label=str(method), color=colour, marker=marker)
        for row in rows.to_dict("records"):
            keep = "" if math.isnan(row["keep_ratio"]) else f", keep ratio {row['keep_ratio']:g}"
            tip = f"{method}{keep}: {row['change']:+.1f} points at {100 * row['cost']:.0f} % cost"
            picture.point(ax, 100 * row["cost"], row["change"], tip, color=colour, marker=marker)
    stars = {"SSv2": "*", "K400": "P"}
    points = published_points()
    for row in points.to_dict("records"):
        tip = (
            f"published, {row['dataset']}, {row['model']}: {row['top1']:.2f} % "
            f"({row['change']:+.2f} points) at {row['gflops']:g} GFLOPs ({100 * row['cost']:.0f} %)"
        )
        marker = stars[row["dataset"]]
        at = (100 * row["cost"], row["change"])
        picture.hide(picture.point(ax, *at, tip, marker=marker, color=INK, markersize=9))
    for dataset, marker in stars.items():
        name = f"published, {dataset}"
        ax.plot([], [], color=INK, linestyle="none", marker=marker, markersize=9, label=name)
    picture.legend_below(ax)
    for handle, text in zip(
        picture.legends[0].legend_handles, picture.legends[0].get_texts(), strict=True
    ):
        if text.get_text().startswith("published, "):
            picture.hide(text)
            if handle is not None:
                picture.hide(handle)
    return picture
