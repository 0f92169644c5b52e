"""The picture of what a model makes of a clip: panels of frames with names and colour scales.

Every panel shows the frames as the model sees them, resized and cropped, one of each token row in
time. A video of it is one picture a frame.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from selector.deploy.overlay import MIDDLE_GREY, Frames, heat, paint_groups, veil_dropped

WIDTH = 1000
"""Pixels of every picture."""
_MARGIN = 16
_GAP = 3
_BETWEEN = 14
_BAR, _BAR_TEXT = 12, 44
_COLUMNS = 8
"""Frames of a panel on one line; a longer panel goes on below."""
_LARGEST, _LARGEST_ALONE = 180, 300
_TITLE, _TEXT, _SMALL = 18, 14, 12
_INK = (26, 27, 28)


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One way to show a clip."""

    name: str
    """What is drawn, and what its colours mean."""
    frames: Frames
    """uint8 (T, H, W, 3)."""
    scale: tuple[float, float] | None = None
    """The values of the darkest and the brightest colour of a heat map; None: it is none."""


def mask_panels(
    frames: Frames,
    kept: npt.NDArray[np.bool_],
    scores: npt.NDArray[np.float32] | None = None,
    group: npt.NDArray[np.int64] | None = None,
    method: str = "lite",
) -> list[Panel]:
    """The frames, what their tokens are predicted to be worth, and which are kept or merged.

    Args:
        frames: uint8 (T, H, W, 3).
        kept: bool (t, y, x).
        scores: (t, y, x), as `LiteOutput.scores` has them; None or NaN where nothing is predicted.
        group: int64 (t, y, x), as `LiteOutput.group` has it.
        method: that decided, for the names.
    """
    panels = [Panel(name="frames, as the model sees them", frames=frames)]
    num, share = int(kept.sum()), kept.mean()
    if scores is not None and np.isfinite(scores).all():
        high = float(scores.max())
        brightest = high if high > 0 else 1.0
        panels.append(
            Panel(
                name="value of each token, predicted from its patch alone; 1 would be the best of "
                f"a clip, this one's best is {high:.2g}",
                frames=heat(frames, scores, 0.0, brightest),
                scale=(0.0, brightest),
            )
        )
        without = ""
    else:
        without = f"; {method} gives no scores, so there is no heat map"
    if kept.all():
        name = f"all {num} tokens are kept, and none is ranked"
        return [*panels, Panel(name=name, frames=frames)]
    if group is not None and _merges(group):
        left = len(np.unique(group[group >= 0]))
        name = f"{kept.size} tokens merged into {left} by {method}: each shows its mean colour"
        name += without
        return [*panels, Panel(name=name, frames=paint_groups(frames, group))]
    name = f"kept by {method}: {num} of {kept.size} tokens ({share:.0%}), the rest blue{without}"
    return [*panels, Panel(name=name, frames=veil_dropped(frames, kept))]


def _merges(group: npt.NDArray[np.int64]) -> bool:
    inside = group[group >= 0]
    return len(np.unique(inside)) < len(inside)


def draw_clip(heading: Sequence[str], panels: Sequence[Panel], num_rows: int) -> Image.Image:
    """A still picture of a clip, one frame of each token row in time.

    Args:
        heading: lines above, the first one large; empty: none.
        panels: alike in their frames.
        num_rows: token rows in time.
    """
    step = len(panels[0].frames) // num_rows
    shown = []
    for start in range(0, num_rows, _COLUMNS):
        end = min(start + _COLUMNS, num_rows)
        note = f" (frames {start * step + 1} to {end * step})" if num_rows > _COLUMNS else ""
        for panel in panels:
            part = panel.frames[start * step : end * step : step]
            shown.append(Panel(name=panel.name + note, frames=part, scale=panel.scale))
    return _draw(heading, shown)


def draw_frame(heading: Sequence[str], panels: Sequence[Panel], frame: int) -> Image.Image:
    """One frame of the video of a clip: its panels side by side.

    Args:
        heading: as `draw_clip` has it.
        panels: alike in their frames.
        frame: which.
    """
    alone = slice(frame, frame + 1)
    parts = [Panel(name=s.name, frames=s.frames[alone], scale=s.scale) for s in panels]
    picture = _draw(heading, parts)
    even = Image.new("RGB", (WIDTH, picture.height + picture.height % 2), "white")
    even.paste(picture)  # 4:2:0 needs even sides
    return even


def png_bytes(picture: Image.Image) -> bytes:
    """A picture as the bytes of a file."""
    data = io.BytesIO()
    picture.save(data, format="png")
    return data.getvalue()


def draw_text(lines: Sequence[str]) -> Image.Image:
    """A frame of words, for a window that has no picture."""
    titles = [line for text in lines for line in _wrapped(text, _font(_TEXT))]
    height = 2 * _MARGIN + len(titles) * _line(_TEXT)
    picture = Image.new("RGB", (WIDTH, height + height % 2), "white")
    _write(ImageDraw.Draw(picture), _MARGIN, _MARGIN, titles, _TEXT)
    return picture


def _draw(heading: Sequence[str], panels: Sequence[Panel]) -> Image.Image:
    columns = max(len(panel.frames) for panel in panels)
    side = _side(columns, len(panels))
    width = columns * (side + _GAP) - _GAP + _BAR + _BAR_TEXT
    a_line = max(1, (WIDTH - 2 * _MARGIN + _BETWEEN) // (width + _BETWEEN))
    lines = [panels[i : i + a_line] for i in range(0, len(panels), a_line)]
    names = [[_wrapped(s.name, _font(_TEXT), width - _GAP) for s in line] for line in lines]
    titles = [_wrapped(line, _font(_TITLE if i == 0 else _TEXT)) for i, line in enumerate(heading)]

    def text_height(texts: Sequence[Sequence[str]], size: int) -> int:
        return max(map(len, texts)) * _line(size)

    top = _MARGIN + sum(
        text_height([title], _TITLE if i == 0 else _TEXT) for i, title in enumerate(titles)
    )
    top += _BETWEEN if titles else 0
    height = top + sum(text_height(texts, _TEXT) + side + _BETWEEN for texts in names)
    picture = Image.new("RGB", (WIDTH, height + _MARGIN - _BETWEEN), "white")
    pen = ImageDraw.Draw(picture)
    at = _MARGIN
    for i, title in enumerate(titles):
        at = _write(pen, _MARGIN, at, title, _TITLE if i == 0 else _TEXT)
    at = top
    for line, texts in zip(lines, names, strict=True):
        below = at + text_height(texts, _TEXT)
        for place, (panel, text) in enumerate(zip(line, texts, strict=True)):
            left = _MARGIN + place * (width + _BETWEEN)
            _write(pen, left, below - len(text) * _line(_TEXT), text, _TEXT)
            for i, frame in enumerate(panel.frames):
                how = Image.Resampling.BOX if frame.shape[0] > side else Image.Resampling.NEAREST
                small = Image.fromarray(frame).resize((side, side), how)
                picture.paste(small, (left + i * (side + _GAP), below))
            if panel.scale is not None:
                right = left + len(panel.frames) * (side + _GAP) + _GAP
                _draw_bar(picture, pen, right, below, side, panel.scale)
        at = below + side + _BETWEEN
    return picture


def _side(columns: int, num_panels: int) -> int:
    """Pixels of a frame's side: single frames share a line, longer panels have it alone."""
    room = WIDTH - 2 * _MARGIN
    if columns == 1:
        each = (room + _BETWEEN) // num_panels - _BETWEEN - _BAR - _BAR_TEXT
        return min(_LARGEST_ALONE, each)
    return min(_LARGEST, (room - _BAR - _BAR_TEXT + _GAP) // columns - _GAP)


def _draw_bar(
    picture: Image.Image,
    pen: ImageDraw.ImageDraw,
    left: int,
    top: int,
    height: int,
    scale: tuple[float, float],
) -> None:
    """The scale of a heat map, its colours as they lie over a frame of middle grey."""
    low, high = scale
    values = np.linspace(high, low, height)[None, :, None]
    bar = heat(np.full((1, height, 1, 3), MIDDLE_GREY, np.uint8), values, low, high)[0]
    picture.paste(Image.fromarray(bar.repeat(_BAR, axis=1)), (left, top))
    right, small = left + _BAR + _GAP, _font(_SMALL)
    pen.text((right, top), f"{high:.2g}", _INK, small)
    pen.text((right, top + height - _line(_SMALL)), f"{low:.2g}", _INK, small)


def _write(pen: ImageDraw.ImageDraw, left: int, top: int, lines: Sequence[str], size: int) -> int:
    for line in lines:
        pen.text((left, top), line, _INK, _font(size))
        top += _line(size)
    return top


def _line(size: int) -> int:
    return size + 5


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """The letters that matplotlib brings: more alphabets than Pillow's own."""
    import matplotlib

    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    return ImageFont.truetype(str(path), size)


def _wrapped(
    text: str, font: ImageFont.FreeTypeFont, width: int = WIDTH - 2 * _MARGIN
) -> list[str]:
    """Lines that fit a width in pixels; a word that does not is broken."""
    lines = [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}" if lines[-1] else word
        if font.getlength(longer) <= width:
            lines[-1] = longer
            continue
        if lines[-1]:
            lines.append("")
        for letter in word:
            if lines[-1] and font.getlength(lines[-1] + letter) > width:
                lines.append("")
            lines[-1] += letter
    return lines
