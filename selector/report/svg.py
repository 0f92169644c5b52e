"""A picture inside a page: SVG in the colours of the reader's theme, whose points say numbers."""

from __future__ import annotations

import io
import re
from html import escape
from typing import Any

from matplotlib import rc_context

from selector.report.draw import GRID, INK, Picture


def inline_svg(picture: Picture, alt: str, number: int) -> str:
    """The `<svg>` element.

    Args:
        picture: drawn.
        alt: what it shows, for readers who do not see it.
        number: of the picture in its page; keeps the names inside apart from another's.
    """
    data = io.StringIO()
    how: Any = {"svg.fonttype": "none", "svg.hashsalt": str(number), "font.family": "sans-serif"}
    with rc_context(how):
        picture.savefig(data, format="svg", metadata={"Date": None})
    text = data.getvalue()
    svg = text[text.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, count=1, flags=re.S)
    svg = svg.replace(INK, "var(--ink)").replace(GRID, "var(--grid)")
    for name, tip in picture.tips.items():
        shown, over = escape(tip), " over" if name in picture.layer else ""
        svg = svg.replace(
            f'<g id="{name}">',
            f'<g class="tip{over}" tabindex="0" role="img" aria-label="{shown}">'
            f"<title>{shown}</title>",
        )
    for name in picture.layer:
        svg = svg.replace(f'<g id="{name}">', '<g class="over">')
    svg = re.sub(r'(<g) id="[a-zA-Z]\w*_\d+"', r"\1", svg)  # the same in every picture
    opened = f'<svg class="plot" role="img" aria-label="{escape(alt)}"'
    return re.sub(r' (width|height)="[\d.]+pt"', "", svg, count=2).replace("<svg", opened, 1)
