"""Which tokens of a clip lie where something moves, on edges, and on who acts.

Axes: T frames of a clip, t tubelets; a token is the box of pixels of one tubelet and one patch.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from scipy.ndimage import sobel

from pipeline.clips.grid import TokenGrid
from selector.analysis.videos import Frames
from selector.methods.rank.motion import pixel_motion

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

BUSIEST = 0.2
"""Share of a clip's tokens, those with the most motion or edges, that counts as moving or edgy."""
COVERED = 0.25
"""Share of a token's pixels that an actor must cover for the token to be on it."""

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
"""Weights of red, green and blue (ITU-R BT.601)."""


def motion(frames: Frames, grid: TokenGrid, std: tuple[float, ...]) -> Floats:
    """What the method `motion-pixels` ranks by: mean absolute change since the tubelet before.

    Args:
        frames: (T, H, W, 3) of a clip.
        grid: its tokens.
        std: of the checkpoint's normalisation, a channel each, on the scale of 0 to 255.

    Returns:
        (t, y, x); the first tubelet has the second's.
    """
    scaled = torch.from_numpy(frames.astype(np.float32) / np.asarray(std, np.float32))
    found = pixel_motion(scaled.permute(0, 3, 1, 2)[None], grid.t, frames.shape[1] // grid.h)
    return found.view(tuple(grid)).double().numpy()


def edges(frames: Frames, grid: TokenGrid) -> Floats:
    """Mean length of the grey-level gradient on each token, by Sobel's operator, (t, y, x).

    Sobel and Feldman (1968), as `scipy.ndimage.sobel` has it: differences over three pixels,
    smoothed across by (1, 2, 1), the border's pixels repeated.
    """
    grey = frames.astype(np.float32) @ _LUMA
    # Frame by frame: of three axes it would smooth over time too.
    lengths = [np.hypot(*(sobel(g, axis=axis, mode="nearest") for axis in (0, 1))) for g in grey]
    return per_token(np.stack(lengths), grid)


def per_token(pixels: npt.NDArray[np.floating], grid: TokenGrid) -> Floats:
    """Mean of the pixels (T, H, W) of each token: (t, y, x)."""
    t, h, w = (size // num for size, num in zip(pixels.shape, grid, strict=True))
    boxes = pixels.reshape(grid.t, t, grid.h, h, grid.w, w)
    return np.asarray(boxes.mean(axis=(1, 3, 5), dtype=np.float64))


def busiest(evidence: Floats) -> Mask:
    """The `BUSIEST` share of the tokens; fewer where others have as much as the least of them.

    None at all where all are alike: then no place moves, or has edges, more than another.
    """
    return np.asarray(evidence > np.quantile(evidence, 1 - BUSIEST))
