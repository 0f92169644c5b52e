"""Where value lies, beside motion, edges and actors: one section of the page."""

from __future__ import annotations

import math

import pandas as pd

from selector.analysis.areas import BUSIEST, COVERED
from selector.analysis.overlap import Overlap
from selector.report.draw import COLOURS, GRID, INK, Picture
from selector.report.words import interval

_SHOWN = {"value_share": "value", "top10_share": "best 10 % of the tokens"}


def headline(seen: Overlap) -> list[str]:
    """The actor where it is known, else motion, in a sentence."""
    rows = {
        row["area"]: row for row in seen.table.to_dict("records") if row["measure"] == "value_share"
    }
    for area, name in (("actor", "the labelled actor"), ("motion", "what moves most")):
        if area in rows:
            row = rows[area]
            value, low, high = (100 * row[key] for key in ("value", "low", "high"))
            return [
                f"Of the value, {value:.1f} % {interval(low, high)} lies on {name}, which has "
                f"{100 * row['uniform']:.1f} % of the tokens."
            ]
    return []


def said(seen: Overlap, over: str) -> list[str]:
    """What was sampled, and for each area a sentence; intervals are `over` what it says."""
    lines = [" ".join(seen.notes)]
    rows = seen.table[seen.table["measure"] == "value_share"]
    for row in rows.to_dict("records"):
        value, low, high = (100 * row[name] for name in ("value", "low", "high"))
        other = (
            ""
            if math.isnan(row["other_video"])
            else (f"; of another video's map, {100 * row['other_video']:.1f} % lies there")
        )
        lines.append(
            f"{row['area'].capitalize()}: {100 * row['uniform']:.1f} % of the tokens hold "
            f"{value:.1f} % {interval(low, high)} of the value, {row['ratio']:.2f} times "
            f"{interval(row['ratio_low'], row['ratio_high'], '.2f')} what a uniform map has{other}."
        )
    lines.append(
        f"Motion and edges are the {100 * BUSIEST:.0f} % of a clip's tokens with the most change "
        "since the tubelet before, and with the steepest grey-level gradients (Sobel); on an actor "
        f"is a token of whose pixels it covers {100 * COVERED:.0f} % or more. Intervals are over "
        f"{over}."
    )
    return lines


def drawn(table: pd.DataFrame) -> Picture:
    """Shares of value and of the best tokens on each area, beside what they would be otherwise."""
    areas = list(table["area"].unique())
    picture = Picture(height=1.5 + 0.75 * len(areas))
    ax = picture.axes_of("share that lies there, %", "")
    ax.grid(visible=False, axis="y")
    for place, area in enumerate(areas):
        rows = table[table["area"] == area].set_index("measure")
        first = rows.loc["value_share"]
        uniform = 100 * first["uniform"]
        line = ax.vlines(
            uniform, place - 0.3, place + 0.3, color=INK, linewidth=1.5, linestyle="--"
        )
        picture.tip(line, f"{area}: {uniform:.1f} % of the tokens")
        if not math.isnan(first["other_video"]):
            other = 100 * first["other_video"]
            tip = f"{area}: {other:.1f} % of the value of another video's map"
            picture.point(ax, other, place, tip, marker="D", markersize=5, color=COLOURS[7])
        for offset, (measure, name), colour, marker in zip(
            (-0.15, 0.15), _SHOWN.items(), COLOURS, "os", strict=False
        ):
            row = rows.loc[measure]
            value, low, high = (100 * row[key] for key in ("value", "low", "high"))
            ax.hlines(place + offset, low, high, color=colour, linewidth=1.5)
            tip = f"{area}: {value:.1f} % [{low:.1f}, {high:.1f}] of the {name}"
            picture.point(ax, value, place + offset, tip, marker=marker, color=colour)
    for name, colour, marker in zip(_SHOWN.values(), COLOURS, "os", strict=False):
        ax.plot([], [], marker=marker, color=colour, label=name)
    ax.plot([], [], "--", color=INK, label="a uniform map")
    ax.plot([], [], "D", markersize=5, color=COLOURS[7], label="another video's map")
    for place in range(1, len(areas)):
        ax.axhline(place - 0.5, color=GRID, linewidth=0.6)
    ax.set_yticks(range(len(areas)), areas)
    ax.set_ylim(len(areas) - 0.5, -0.5)
    ax.set_xlim(left=0)
    picture.legend_below(ax)
    return picture
