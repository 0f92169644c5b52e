"""Adaptive budgets (LITE++): how many videos get which budget, and what that is worth."""

from __future__ import annotations

import pandas as pd

from selector.evaluation.report.summary import Summary
from selector.report.draw import COLOURS, MARKERS, Picture


def budgets_frame(summary: Summary, selector: str) -> pd.DataFrame:
    """Who got which budget.

    Args:
        summary: of the evaluation.
        selector: one of its `lite_methods`.

    Returns:
        One row per rule, base and budget that some video got: `method`, `base_ratio`,
        `keep_ratio`, `share` and `num_videos` of the videos (a rounded share).
    """
    rows = [
        (
            setting.method,
            setting.base_ratio,
            ratio,
            share,
            round(share * summary.num_videos),
        )
        for setting in summary.adaptive
        if setting.selector == selector
        for ratio, share in setting.shares.items()
    ]
    columns = ["method", "base_ratio", "keep_ratio", "share", "num_videos"]
    return pd.DataFrame(rows, columns=columns)


def shares(frame: pd.DataFrame) -> Picture:
    """A bar for every rule and base, cut by budget.

    Args:
        frame: of `budgets_frame`, not empty.
    """
    bars = list(frame.groupby(["method", "base_ratio"], sort=False))
    picture = Picture(height=1.6 + 0.32 * len(bars))
    ax = picture.axes_of("videos, %", "")
    ax.grid(visible=False, axis="y")
    ratios = sorted(frame["keep_ratio"].unique())
    for ratio, colour in zip(ratios, _ramp(len(ratios)), strict=True):
        ax.barh([0], [0], color=colour, label=f"keeps {ratio:g}")
    for place, ((method, base), rows) in enumerate(bars):
        left = 0.0
        for row in rows.sort_values("keep_ratio").to_dict("records"):
            tip = (
                f"{method} from {base:g}: {row['num_videos']} videos ({100 * row['share']:.0f} %) "
                f"keep {row['keep_ratio']:g}"
            )
            colour = _ramp(len(ratios))[ratios.index(row["keep_ratio"])]
            [bar] = ax.barh([place], [100 * row["share"]], left=left, color=colour)
            picture.tip(bar, tip)
            left += 100 * row["share"]
    ax.set_yticks(range(len(bars)), [f"{method}\nfrom {base:g}" for (method, base), _ in bars])
    ax.tick_params(axis="y", labelsize="small")
    ax.invert_yaxis()
    picture.legend_below(ax)
    return picture


def worth(summary: Summary, selector: str) -> Picture:
    """Top-1 at the mean cost of each adaptive budget, beside the selector's fixed budgets."""
    picture = Picture(height=4.6)
    ax = picture.axes_of("mean GFLOPs of one view", "top-1 %")
    kinds = dict.fromkeys(s.method for s in summary.adaptive if s.selector == selector)
    looks = zip((selector, *kinds), COLOURS, MARKERS, strict=False)
    for method, colour, marker in looks:
        rows = [row for row in summary.table if row.method == method and row.gmacs is not None]
        rows.sort(key=lambda row: row.gmacs or 0.0)
        x, y = [row.gmacs or 0.0 for row in rows], [100 * row.top1 for row in rows]
        low, high = ([100 * getattr(row, f"top1_{end}") for row in rows] for end in ("low", "high"))
        if method == selector:
            ax.fill_between(x, low, high, color=colour, alpha=0.12, linewidth=0)
            ax.plot(x, y, color=colour, linewidth=1.2)
        else:
            ax.vlines(x, low, high, color=colour, linewidth=1.0)
        name = f"{method}, fixed budgets" if method == selector else method
        ax.plot([], [], color=colour, marker=marker, linestyle="none", label=name)
        for at, top1, row in zip(x, y, rows, strict=True):
            what = "keep ratio" if method == selector else "from"
            tip = (
                f"{method}, {what} {row.keep_ratio:g}: {top1:.1f} % [{100 * row.top1_low:.1f}, "
                f"{100 * row.top1_high:.1f}] at {at:.4g} GFLOPs"
            )
            picture.point(ax, at, top1, tip, marker=marker, color=colour)
    picture.legend_below(ax)
    return picture


def _ramp(number: int) -> list[str]:
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    if number == 1:
        return [COLOURS[0]]
    return [to_hex(colormaps["viridis"](i / (number - 1))) for i in range(number)]
