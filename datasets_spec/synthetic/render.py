"""Draws a scene: numpy only, antialiased, so that motion of a fraction of a pixel shows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from datasets_spec.synthetic.actions import DURATION, SIDE, Path
from datasets_spec.synthetic.scene import COLOURS, Actor, Scene

REACH = {"disc": 0.8, "square": 1.0, "diamond": 1.18, "triangle": 1.24, "ring": 0.95, "cross": 1.05}
"""Farthest point of each shape from its centre, as a share of the radius."""

Slices = tuple[slice, slice]
"""Rows and columns of a picture."""


def render(scene: Scene) -> np.ndarray:
    """All frames of a scene, uint8 `(num_frames, height, width, 3)`."""
    frames = _background(scene)
    for actor in reversed(scene.actors):  # the labelled actor is drawn last, on top
        for path in actor.paths:
            _draw(frames, scene, actor, path)
    return np.clip(frames + 0.5, 0, 255).astype(np.uint8)


def visible_boxes(scene: Scene, actor: Actor, path: Path) -> np.ndarray:
    """Box of one body on each frame in video pixels, float32 `(num_frames, 4)`: x0, y0, x1, y1.

    NaN where the body is hidden.
    """
    x, y, radius = _in_video(scene, actor, path)
    reach = radius * REACH[actor.shape]
    boxes = np.stack([x - reach, y - reach, x + reach, y + reach], axis=1)
    boxes[path.opacity < 0.1] = np.nan
    return boxes.astype(np.float32)


def _in_video(scene: Scene, actor: Actor, path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centre and radius in the video's own pixels; the model's square is the video's middle."""
    zoom = scene.height / SIDE
    x = path.x * zoom + (scene.width - scene.height) / 2.0
    return x, path.y * zoom, path.scale * actor.radius * zoom


def _background(scene: Scene) -> np.ndarray:
    """A drifting cloud of muted colour, float32 `(num_frames, height, width, 3)`."""
    rng = np.random.default_rng(scene.texture_seed)
    margin = 12
    height, width = scene.height + 2 * margin, scene.width + 2 * margin
    tint = rng.uniform(-12, 12, 3)
    coarse = _upsample(rng.standard_normal((5, 6, 3)), height, width) * 22
    fine = _upsample(rng.standard_normal((height // 4, width // 4, 1)), height, width) * 14
    canvas = (rng.uniform(100, 155) + tint + coarse + fine).astype(np.float32)

    zoom = scene.height / SIDE
    time = (np.arange(scene.num_frames) + 0.5) / scene.num_frames * DURATION - DURATION / 2
    shift_x, shift_y = (margin + v * zoom * time for v in scene.drift)
    frames = np.empty((scene.num_frames, scene.height, scene.width, 3), np.float32)
    for i in range(scene.num_frames):
        x, y = int(shift_x[i]), int(shift_y[i])
        fx, fy = np.float32(shift_x[i] - x), np.float32(shift_y[i] - y)
        window = canvas[y : y + scene.height + 1, x : x + scene.width + 1]
        rows = window[:-1] * (1 - fy) + window[1:] * fy
        frames[i] = rows[:, :-1] * (1 - fx) + rows[:, 1:] * fx
    return frames


def _upsample(grid: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear enlargement of `(h, w, c)` to `(height, width, c)`."""
    for axis, size in ((0, height), (1, width)):
        at = np.linspace(0, grid.shape[axis] - 1.001, size)
        low = at.astype(int)
        part = (at - low).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
        grid = grid.take(low, axis) * (1 - part) + grid.take(low + 1, axis) * part
    return grid


def actor_cover(scene: Scene, actor: Actor) -> np.ndarray:
    """How much of each pixel an actor takes up, whatever else is drawn over it.

    Its bodies' area, times their opacity: the contrast, which is how it looks, is left out.

    Returns:
        float32 `(num_frames, height, width)` in [0, 1].
    """
    cover = np.zeros((scene.num_frames, scene.height, scene.width), np.float32)
    for path in actor.paths:
        body = _body(scene, actor, path)
        area = np.clip(body.depth + 0.5, 0, 1) * path.opacity.astype(np.float32)[:, None, None]
        for i, inside, part in body.windows(scene):
            np.maximum(cover[i][inside], area[i][part], out=cover[i][inside])
    return cover


class _Body(NamedTuple):
    """One body on every frame, each in a square window around it; n frames, s pixels a side."""

    left: np.ndarray
    """int `(n,)`, of the window, in video pixels; may be outside of the video."""
    top: np.ndarray
    """int `(n,)`."""
    u: np.ndarray
    """float32 `(n, s, s)`, across the body, in radii."""
    depth: np.ndarray
    """float32 `(n, s, s)`, pixels from the outline, positive inside."""

    def windows(self, scene: Scene) -> Iterator[tuple[int, Slices, Slices]]:
        """Of each frame that shows some of it: its number, where that is in the video and here."""
        side = self.depth.shape[1]
        for i, (left, top) in enumerate(zip(self.left, self.top, strict=True)):
            y0, y1 = max(top, 0), min(top + side, scene.height)
            x0, x1 = max(left, 0), min(left + side, scene.width)
            if y0 < y1 and x0 < x1:
                yield i, np.s_[y0:y1, x0:x1], np.s_[y0 - top : y1 - top, x0 - left : x1 - left]


def _body(scene: Scene, actor: Actor, path: Path) -> _Body:
    x, y, radius = _in_video(scene, actor, path)
    side = int(2 * REACH[actor.shape] * radius.max()) + 4
    left, top = (np.floor(v).astype(int) - side // 2 for v in (x, y))
    grid = np.arange(side, dtype=np.float32) + 0.5
    dx = (left[:, None] + grid - x[:, None]).astype(np.float32)[:, None, :]
    dy = (top[:, None] + grid - y[:, None]).astype(np.float32)[:, :, None]
    cos, sin = np.float32(np.cos(actor.tilt)), np.float32(np.sin(actor.tilt))
    size = radius.astype(np.float32)[:, None, None]
    u, v = (dx * cos + dy * sin) / size, (dy * cos - dx * sin) / size
    return _Body(left, top, u, _inside(actor.shape, u, v) * size)


def _draw(frames: np.ndarray, scene: Scene, actor: Actor, path: Path) -> None:
    """Blends one body into all frames."""
    body = _body(scene, actor, path)
    cover = np.clip(body.depth + 0.5, 0, 1) * actor.contrast
    cover *= path.opacity.astype(np.float32)[:, None, None]
    shade = 0.85 + 0.15 * np.sin(body.u * np.float32(np.pi * actor.stripes))
    shade *= np.where(body.depth < 1.2, np.float32(0.6), np.float32(1.0))  # a darker rim
    colour = np.asarray(COLOURS[actor.colour], np.float32)
    for i, inside, part in body.windows(scene):
        target = frames[i][inside]
        target += cover[i][part][..., None] * (shade[i][part][..., None] * colour - target)


def _inside(shape: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """About the distance to the outline as a share of the radius, positive inside.

    Every shape covers the same area, 2.0 squared radii: shape must not decide salience.
    """
    if shape == "disc":
        return np.float32(0.8) - np.hypot(u, v)
    if shape == "square":
        return np.float32(0.707) - np.maximum(np.abs(u), np.abs(v))
    if shape == "diamond":
        return (1 - np.abs(u) / np.float32(0.85) - np.abs(v) / np.float32(1.18)) * np.float32(0.69)
    if shape == "triangle":
        slope, flat = np.float32(0.866), np.float32(0.62)
        return np.minimum(flat - v, flat + v / 2 - slope * np.abs(u))
    if shape == "ring":
        return np.float32(0.225) - np.abs(np.hypot(u, v) - np.float32(0.725))
    thick, long = np.float32(0.3), np.float32(1.0)  # a cross
    return np.maximum(
        np.minimum(thick - np.abs(u), long - np.abs(v)),
        np.minimum(thick - np.abs(v), long - np.abs(u)),
    )
