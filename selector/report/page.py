"""A page of sections, filled into the template: one HTML document that fetches nothing."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import jinja2
import pandas as pd

from selector.report.draw import Picture
from selector.report.principles import FAILS, HOLDS, IN_PART, Verdict
from selector.report.strips import Frames, Strip
from selector.report.svg import inline_svg

_KINDS = {HOLDS: "holds", IN_PART: "part", FAILS: "fails"}
_JPEG_QUALITY = 88
_SMALL = 112
"""Pixels below which a frame is enlarged, so that smoothing it would blur where tokens end."""


@dataclass
class Plot:
    """A picture with what it shows in words.

    Attributes:
        picture: drawn.
        alt: below it, and for readers who do not see it.
        layer: what the picture's hidden layer is called, where it has one.
    """

    picture: Picture
    alt: str
    layer: str = ""


@dataclass
class Table:
    """Rows for the page; folded ones open when asked."""

    caption: str
    frame: pd.DataFrame
    folded: bool = False


@dataclass
class Section:
    """A part of the page, in this order; `more` are plots that open when asked."""

    title: str
    text: list[str] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    plots: list[Plot] = field(default_factory=list)
    strips: list[Strip] = field(default_factory=list)
    commands: list[tuple[str, str]] = field(default_factory=list)
    """Each with what it did."""
    tables: list[Table] = field(default_factory=list)
    more: list[Plot] = field(default_factory=list)


def render(title: str, parts: Sequence[Section]) -> str:
    """The page."""
    number = 0

    def drawn(plot: Plot) -> dict[str, str]:
        nonlocal number
        number += 1
        svg = inline_svg(plot.picture, plot.alt, number)
        classes = "layered" if plot.layer else ""
        return {"svg": svg, "alt": plot.alt, "layer": plot.layer, "classes": classes}

    shown = [
        {
            "title": part.title,
            "text": part.text,
            "verdicts": [_verdict(verdict) for verdict in part.verdicts],
            "figures": [drawn(plot) for plot in part.plots],
            "strips": [_strip(strip) for strip in part.strips],
            "commands": part.commands,
            "tables": [_table(table) for table in part.tables],
            "more": [drawn(plot) for plot in part.more],
        }
        for part in parts
    ]
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("selector.report", ""), autoescape=True
    )
    return environment.get_template("page.html").render(title=title, sections=shown)


def _verdict(verdict: Verdict) -> dict[str, Any]:
    return vars(verdict) | {"kind": _KINDS.get(verdict.verdict, "open")}


def _strip(strip: Strip) -> dict[str, Any]:
    rows = [(name, [_jpeg(frame) for frame in frames]) for name, frames in strip.pictures.items()]
    width = next(iter(strip.pictures.values())).shape[2]
    return {"title": strip.title, "rows": rows, "small": width < _SMALL}


def _jpeg(frame: Frames) -> str:
    from PIL import Image

    data = io.BytesIO()
    Image.fromarray(frame).save(data, "JPEG", quality=_JPEG_QUALITY, subsampling=0)
    return base64.b64encode(data.getvalue()).decode()


def _table(table: Table) -> dict[str, Any]:
    frame = table.frame
    rows = [[_cell(value) for value in row] for row in frame.itertuples(index=False)]
    return {
        "caption": table.caption,
        "folded": table.folded,
        "columns": list(frame.columns),
        "rows": rows,
    }


def _cell(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "yes" if value else ""
    if pd.isna(value):  # type: ignore[call-overload]
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
