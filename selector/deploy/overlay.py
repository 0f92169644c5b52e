"""Shows which tokens a clip keeps: the others are darkened, in a sheet of frames or a video."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from PIL import Image

from pipeline.errors import ConfigError

Frames = npt.NDArray[np.uint8]

SUFFIXES = (".png", ".mp4")
_DROPPED_LIGHT = 0.2
_MIN_SIDE = 224
_GAP = 4
_FRAMES_PER_S = 4


def check_overlay_path(path: Path) -> None:
    """Refuse a file that cannot be written, before any work is done.

    Raises:
        ConfigError: no such format, or no such folder.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"{path} must end in {' or '.join(SUFFIXES)}")
    if not path.absolute().parent.is_dir():
        raise ConfigError(f"{path} cannot be written: its folder does not exist")


def darken_dropped(frames: Frames, kept: npt.NDArray[np.bool_]) -> Frames:
    """The frames with every dropped token darkened.

    Args:
        frames: uint8 (T, H, W, 3).
        kept: bool (t, y, x); T, H and W are multiples of t, y and x.

    Returns:
        uint8 (T, H, W, 3).
    """
    for axis, size in enumerate(frames.shape[:3]):
        kept = kept.repeat(size // kept.shape[axis], axis=axis)
    dark = (frames * _DROPPED_LIGHT).round().astype(np.uint8)
    return np.where(kept[..., None], frames, dark)


def contact_sheet(frames: Frames) -> Frames:
    """All frames (T, H, W, 3) in rows on white, first frame top left: uint8 (H', W', 3)."""
    num, height, width, _ = frames.shape
    columns = math.ceil(math.sqrt(num))
    rows = math.ceil(num / columns)
    down, right = height + _GAP, width + _GAP
    sheet = np.full((rows * down - _GAP, columns * right - _GAP, 3), 255, dtype=np.uint8)
    for i, frame in enumerate(frames):
        top, left = i // columns * down, i % columns * right
        sheet[top : top + height, left : left + width] = frame
    return sheet


def save_overlay(path: Path, frames: Frames, kept: npt.NDArray[np.bool_]) -> None:
    """Write the kept tokens over the frames, as a contact sheet (.png) or a video (.mp4).

    Args:
        path: its suffix decides.
        frames: uint8 (T, H, W, 3).
        kept: bool (t, y, x).

    Raises:
        ConfigError: no such format or folder.
    """
    check_overlay_path(path)
    shown = darken_dropped(frames, kept)
    factor = max(1, math.ceil(_MIN_SIDE / shown.shape[2]))  # small clips would be a stamp
    shown = shown.repeat(factor, axis=1).repeat(factor, axis=2)
    if path.suffix.lower() == ".png":
        Image.fromarray(contact_sheet(shown)).save(path)
    else:
        _save_video(path, shown)


def _save_video(path: Path, frames: Frames) -> None:
    height, width = (side - side % 2 for side in frames.shape[1:3])  # 4:2:0 needs even sides
    codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=_FRAMES_PER_S)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for frame in frames:
            picture = np.ascontiguousarray(frame[:height, :width])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
