"""The pictures: each takes plain frames and gives a matplotlib figure.

The same figure is saved as a file or put into the page (`selector.report.svg`), where `INK` and
`GRID` become the colours of the reader's theme, and a point says its numbers.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from itertools import cycle

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from selector.analysis.places import Places
from selector.report.strips import Strip

INK, GRID = "#1a1b1c", "#d0d1d2"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#56b4e9", "#7f6fd0", "#8a8a8a")
"""Told apart also by people who see no red or green (Okabe and Ito), on light and on dark."""
MARKERS = "osD^vPX"  # one less than the colours, so that a pair comes again late
ALL, EASY, HARD = COLOURS[0], COLOURS[2], COLOURS[1]
WIDTH = 5.0
"""Inches of a picture; a phone then shows its letters about as large as its text."""
_SHORT_NAME = 26  # letters


class Picture(Figure):
    """A figure whose points carry what a reader who rests on them is told."""

    def __init__(self, width: float = WIDTH, height: float = 4.0) -> None:
        super().__init__(figsize=(width, height), layout="constrained")
        self.patch.set_alpha(0)
        self.tips: dict[str, str] = {}
        self.layer: list[str] = []
        """Names of what is hidden until the reader asks for it."""

    def axes_of(
        self, x: str, y: str, where: tuple[int, int, int] = (1, 1, 1), title: str = ""
    ) -> Axes:
        """An empty diagram with its labels."""
        ax = self.add_subplot(*where)
        ax.patch.set_alpha(0)
        ax.grid(color=GRID, linewidth=0.6)
        ax.set_axisbelow(True)
        ax.tick_params(colors=INK, labelcolor=INK)
        for side, spine in ax.spines.items():
            spine.set_visible(side in ("left", "bottom"))
            spine.set_color(INK)
        ax.set_xlabel(x, color=INK)
        ax.set_ylabel(y, color=INK)
        ax.set_title(title, color=INK, fontsize="medium")
        return ax

    def point(self, ax: Axes, x: float, y: float, tip: str, **style: object) -> Artist:
        """A marker that says `tip`."""
        [drawn] = ax.plot([x], [y], linestyle="none", **style)  # type: ignore[arg-type]
        self.tip(drawn, tip)
        return drawn

    def tip(self, artist: Artist, text: str) -> None:
        """Let what is drawn say a text."""
        name = f"tip-{len(self.tips)}"
        self.tips[name] = text
        artist.set_gid(name)

    def hide(self, artist: Artist) -> None:
        """Put what is drawn into the layer that is off at first."""
        if artist.get_gid() is None:
            artist.set_gid(f"layer-{len(self.layer)}")
        self.layer.append(str(artist.get_gid()))

    def legend_below(self, ax: Axes) -> None:
        """The legend, outside of the diagram: two columns, where the names leave room."""
        _, names = ax.get_legend_handles_labels()
        if names:
            columns = 2 if max(map(len, names)) <= _SHORT_NAME else 1
            self.legend(loc="outside lower center", ncols=columns, frameon=False, labelcolor=INK)


def looks(methods: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Colour and marker of each method: the same in every picture of the same methods."""
    return dict(zip(methods, zip(cycle(COLOURS), cycle(MARKERS)), strict=False))


def accuracy(frame: pd.DataFrame, cost: str = "gmacs") -> Picture:
    """Top-1 against cost with 95 % bands, and the lines that no other one beats (Figure 1).

    Args:
        frame: of `accuracy_frame`.
        cost: `gmacs`, `clips_per_s`, or `keep_ratio` (Figure 2).
    """
    titles = {
        "gmacs": "GFLOPs of one view (multiply-accumulates)",
        "clips_per_s": "clips per second, measured, one worker",
        "keep_ratio": "keep ratio",
    }
    picture = Picture(WIDTH, 3.6 + 0.2 * frame["method"].nunique())
    ax = picture.axes_of(titles[cost], "top-1 %")
    frame = frame.assign(x=frame[cost])
    if cost == "gmacs":  # what an oracle costs beside the blocks is no part of a model
        frame["x"] = frame["gmacs"].fillna(frame["gmacs_backbone"])
    look = looks(frame["method"].unique())
    for method, rows in frame.dropna(subset=["x"]).groupby("method", sort=False):
        colour, marker = look[str(method)]
        rows = rows.sort_values("x")
        answer = rows["needs_answer"].any() and cost != "keep_ratio"
        dashes = "--" if answer else "-"
        note = " (without what deciding costs)" if answer and cost == "gmacs" else ""
        ax.plot(rows["x"], 100 * rows["top1"], dashes, color=colour, linewidth=1.2)
        ax.plot([], [], dashes, marker=marker, color=colour, label=f"{method}{note}")
        if len(rows) > 1:
            ax.fill_between(
                rows["x"],
                100 * rows["top1_low"],
                100 * rows["top1_high"],
                color=colour,
                alpha=0.12,
                linewidth=0,
            )
        for row in rows.to_dict("records"):
            low, high = 100 * row["top1_low"], 100 * row["top1_high"]
            if len(rows) == 1:
                ax.plot([row["x"], row["x"]], [low, high], color=colour, linewidth=1.2)
            keep = "" if np.isnan(row["keep_ratio"]) else f", keep ratio {row['keep_ratio']:g}"
            tip = (
                f"{method}{keep}: {100 * row['top1']:.1f} % [{low:.1f}, {high:.1f}], {row['x']:.4g}"
            )
            picture.point(
                ax,
                row["x"],
                100 * row["top1"],
                f"{tip} {titles[cost]}",
                marker=marker,
                color=colour,
            )
    best = {"gmacs": "best_by_gflops", "clips_per_s": "best_by_speed"}.get(cost)
    if best:
        front = frame[frame[best]].sort_values("x")
        ax.plot(
            front["x"],
            100 * front["top1"],
            "o",
            markersize=12,
            fillstyle="none",
            color=INK,
            label="best of its cost (Pareto front)",
        )
    picture.legend_below(ax)
    return picture


def histogram(
    frame: pd.DataFrame,
    groups: Sequence[str] = ("all",),
    scales: Sequence[str] = ("linear", "log"),
) -> Picture:
    """Share of the tokens by their score, on plain and on logarithmic axes (Figure 3).

    Args:
        frame: `Analysis.histogram`.
        groups: of it.
        scales: of it, side by side.
    """
    picture = Picture(WIDTH if len(scales) == 1 else 7.0, 3.6)
    colours = {"all": ALL, "easy": EASY, "hard": HARD}
    for place, scale in enumerate(scales, start=1):
        y = "share of the tokens, %" if scale == "linear" else "share of the tokens, over bin width"
        ax = picture.axes_of("token value (1 = best of its clip)", y, (1, len(scales), place))
        for group in groups:
            rows = frame[(frame["group"] == group) & (frame["scale"] == scale)]
            name = {"all": "all classes"}.get(group, f"{group} classes")
            if scale == "log":
                height = rows["share"] / (rows["high"] - rows["low"])
                seen = height > 0
                x = np.sqrt(rows["low"] * rows["high"])[seen]
                colour = colours[group]
                ax.plot(x, height[seen], "o-", markersize=3, color=colour, label=name)
            else:
                edges = [*rows["low"], *rows["high"].tail(1)]
                height = 100 * rows["share"]
                ax.stairs(height, edges, fill=len(groups) == 1, color=colours[group], label=name)
        drawn = frame[(frame["scale"] == "log") & frame["group"].isin(groups)]
        if scale == "log" and (drawn["share"] > 0).any():  # of flat maps there is nothing to scale
            ax.set_xscale("log")
            ax.set_yscale("log")
        if len(groups) > 1 and place == 1:
            picture.legend_below(ax)
    return picture


def lorenz(frame: pd.DataFrame, gini: float) -> Picture:
    """Lorenz curve of the token values, beside equality (dashed)."""
    picture = Picture()
    ax = picture.axes_of("share of the tokens, poorest first, %", "share of the value, %")
    ax.plot(100 * frame["tokens"], 100 * frame["value"], color=ALL, label=f"Gini {gini:.3f}")
    ax.plot([0, 100], [0, 100], "--", color=INK, linewidth=1, label="all tokens equal")
    picture.legend_below(ax)
    return picture


def class_drop(
    accuracy_of: Sequence[float], drop: Sequence[float], names: Sequence[str], title: str
) -> Picture:
    """Top-1 lost by each class against the full model's top-1 (Figure 5)."""
    picture = Picture()
    ax = picture.axes_of("top-1 of the full model, %", "top-1 lost, points", title=title)
    ax.axhline(0, color=INK, linewidth=0.8)
    for full, lost, name in zip(accuracy_of, drop, names, strict=True):
        tip = f"{name}: full model {100 * full:.1f} %, loses {100 * lost:+.1f} points"
        picture.point(ax, 100 * full, 100 * lost, tip, marker="o", color=ALL)
    return picture


def value_over_space(found: Places) -> Picture:
    """Mean value of each place of the frame."""
    picture = Picture(WIDTH, 3.4)
    ax = picture.add_subplot(1, 1, 1)
    drawn = ax.imshow(found.over_space, cmap="inferno", vmin=0)
    ax.set_xticks([])
    ax.set_yticks([])
    bar = picture.colorbar(drawn, ax=ax)
    bar.ax.tick_params(colors=INK, labelcolor=INK)
    return picture


def value_over_time(found: Places) -> Picture:
    """Mean value of each place in time, with its interval."""
    time = found.over_time
    picture = Picture(WIDTH, 3.4)
    ax = picture.axes_of("place in time (token row)", "mean value")
    ax.fill_between(time["t"], time["low"], time["high"], color=ALL, alpha=0.2, linewidth=0)
    ax.plot(time["t"], time["mean"], color=ALL)
    for row in time.to_dict("records"):
        tip = f"token row {row['t']}: {row['mean']:.4f} [{row['low']:.4f}, {row['high']:.4f}]"
        picture.point(ax, row["t"], row["mean"], tip, marker="o", color=ALL, markersize=4)
    ax.set_ylim(bottom=0)
    ax.set_xticks(time["t"])
    return picture


def film_strip(shown: Strip) -> Picture:
    """Rows of pictures, one column a place in time (Figures 4 and 7)."""
    rows, columns = len(shown.pictures), len(next(iter(shown.pictures.values())))
    picture = Picture(1.0 * columns + 1, 1.15 * rows + 0.3)
    axes = picture.subplots(rows, columns, squeeze=False)
    for row, (name, frames) in zip(axes, shown.pictures.items(), strict=True):
        for ax, frame in zip(row, frames, strict=True):
            ax.imshow(frame, interpolation="nearest")  # smoothed, tokens would run into each other
            ax.set_axis_off()
        # A name is wider than a frame: with room for its height alone, columns stay together.
        row[0].set_title(" ", fontsize="medium")
        said = {"xy": (0, 1), "xycoords": "axes fraction", "xytext": (0, 6)}
        label = row[0].annotate(name, **said, textcoords="offset points", color=INK)
        label.set(fontsize="medium", in_layout=False)
    # Class names may be long; and a dollar sign in one begins no formula.
    title = textwrap.fill(shown.title, 10 * (columns + 1))
    picture.suptitle(title, color=INK, fontsize="medium", parse_math=False)
    return picture
