"""What is said of a clip's tokens, painted over its frames.

Axes: T frames of H x W pixels; (t, y, x) the token grid, of which T, H and W are multiples.
"""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

Frames = npt.NDArray[np.uint8]
Scalar = TypeVar("Scalar", bound=np.generic)

MIDDLE_GREY = 128
"""Of the frame under a colour scale."""
_DROPPED_LIGHT, _VEIL = 0.2, (15, 30, 90)
"""Dropped tokens are dim and dark blue: dim alone, black clothes would look dropped and not be."""
_FRAME_UNDER_HEAT = 0.35


def veil_dropped(frames: Frames, kept: npt.NDArray[np.bool_]) -> Frames:
    """The frames with every dropped token dim and dark blue.

    Args:
        frames: uint8 (T, H, W, 3).
        kept: bool (t, y, x).

    Returns:
        uint8 (T, H, W, 3).
    """
    dark = (frames * _DROPPED_LIGHT + np.array(_VEIL)).round().astype(np.uint8)
    return np.where(_to_pixels(kept, frames)[..., None], frames, dark)


def heat(
    frames: Frames, values: npt.NDArray[np.floating], low: float = 0.0, high: float = 1.0
) -> Frames:
    """The frames in grey under a map, in matplotlib's colours `inferno`.

    Args:
        frames: uint8 (T, H, W, 3).
        values: (t, y, x).
        low: the value of the darkest colour.
        high: the value of the brightest, above `low`.

    Returns:
        uint8 (T, H, W, 3).
    """
    from matplotlib import colormaps

    shown = (_to_pixels(values, frames).astype(np.float64) - low) / (high - low)
    colour = colormaps["inferno"](shown)[..., :3] * 255
    grey = frames.mean(axis=-1, keepdims=True)
    mixed = _FRAME_UNDER_HEAT * grey + (1 - _FRAME_UNDER_HEAT) * colour
    painted: Frames = mixed.round().astype(np.uint8)
    return painted


def paint_groups(frames: Frames, group: npt.NDArray[np.int64]) -> Frames:
    """The frames with merged tokens in their mean colour, and dropped ones dim and dark blue.

    Args:
        frames: uint8 (T, H, W, 3).
        group: int64 (t, y, x), which token at the head each became part of; -1 for none. One that
            is alone in its group stays as it is.

    Returns:
        uint8 (T, H, W, 3).
    """
    t, y, x = group.shape
    num, height, width, _ = frames.shape
    blocks = frames.reshape(t, num // t, y, height // y, x, width // x, 3)
    of_token = blocks.mean(axis=(1, 3, 5)).reshape(-1, 3)
    flat = group.ravel()
    inside = np.flatnonzero(flat >= 0)
    size = np.bincount(flat[inside])
    total = np.stack([np.bincount(flat[inside], of_token[inside, c]) for c in range(3)], axis=1)
    mean = of_token.copy()
    mean[inside] = total[flat[inside]] / size[flat[inside], None]
    merged = np.zeros(flat.shape, bool)
    merged[inside] = size[flat[inside]] > 1
    shown = veil_dropped(frames, group >= 0)
    colours = _to_pixels(mean.round().astype(np.uint8).reshape(t, y, x, 3), frames)
    return np.where(_to_pixels(merged.reshape(t, y, x), frames)[..., None], colours, shown)


def _to_pixels(values: npt.NDArray[Scalar], frames: npt.NDArray[Any]) -> npt.NDArray[Scalar]:
    """A value of every token (t, y, x, ...) at each of its pixels (T, H, W, ...)."""
    for axis, size in enumerate(frames.shape[:3]):
        values = values.repeat(size // values.shape[axis], axis=axis)
    return values
