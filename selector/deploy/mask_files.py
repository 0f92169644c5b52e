"""Where the pictures of videos' masks go, and how they are written: whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image, ImageOps

from pipeline.config import require_one_of
from pipeline.errors import ConfigError
from pipeline.store.root import Root
from selector.deploy.mask_picture import png_bytes

FORMATS = ("png", "mp4")
FRAMES_PER_S = 4
"""Of the video of one clip, whose frames lie far apart: to look at, not as they were."""
_CLOCK = 90_000
"""Ticks a second of the videos, as MPEG has it."""
_PIECE = 2**20


def mask_paths(place: Path, videos: Sequence[str], file_format: str | None) -> list[Path]:
    """The file of each video's mask.

    A place that ends in .png or .mp4 is the file of the one video. Any other is a folder; a file in
    it has its video's name with the format's ending behind, below as many of the folders above the
    video as it takes to tell all of them apart.

    Args:
        place: a file or folder.
        videos: paths.
        file_format: one of `FORMATS`, for a folder; None: `png`.

    Raises:
        ConfigError: several videos for one file, no such format, or a mask would replace a video.
    """
    if file_format is not None:
        require_one_of("mask_format", file_format, FORMATS)
    ending = place.suffix.lower().removeprefix(".")
    if ending in FORMATS:
        if len(videos) != 1:
            raise ConfigError(
                f"--save-mask {place} is one file, and there are {len(videos)} videos: give a "
                "folder, such as masks/"
            )
        if file_format not in (None, ending):
            raise ConfigError(f"--save-mask {place} is no {file_format}: give one or the other")
        paths = [place]
    elif ending and not place.is_dir():
        raise ConfigError(f"--save-mask {place} must end in .png or .mp4, or be a folder")
    else:
        whole = [Path(os.path.abspath(video)) for video in videos]  # noqa: PTH100 (links stay)
        above = os.path.commonpath([path.parent for path in whole]) if whole else ""
        paths = [place / f"{path.relative_to(above)}.{file_format or FORMATS[0]}" for path in whole]
    for path in paths:
        for video in videos:
            if path.exists() and Path(video).exists() and path.samefile(video):
                raise ConfigError(f"--save-mask would replace the video {video}: name another file")
    return paths


def save_picture(path: Path, picture: Image.Image) -> None:
    """Write a PNG.

    Raises:
        StoreError: the place is full, or may only be read.
        OSError: it cannot be written for another reason.
    """
    Root(path.parent).put(path.name, png_bytes(picture))


class MaskVideo:
    """A video that gets its frames one at a time, and is a file once it is saved.

    What is encoded waits in a temporary file, so its length costs no memory. Close it in the end.
    """

    def __init__(self) -> None:
        codec: Any = "libx264" if "libx264" in av.codecs_available else "mpeg4"
        # Closed by `close`.
        self._file = tempfile.TemporaryFile()  # noqa: SIM115
        self._container = av.open(self._file, "w", format="mp4")
        self._stream: Any = self._container.add_stream(codec, rate=FRAMES_PER_S)
        self._stream.pix_fmt = "yuv420p"
        self._stream.codec_context.time_base = Fraction(1, _CLOCK)
        self._shape: tuple[int, int] | None = None
        self._last = -1

    def add(self, picture: Image.Image, at_s: float) -> None:
        """Show a picture from a time on, in seconds; later than the one before."""
        if self._shape is None:
            self._shape = self._stream.width, self._stream.height = picture.size
        elif picture.size != self._shape:  # a longer name of a class takes another line
            picture = ImageOps.pad(picture, self._shape, color="white")
        frame: Any = av.VideoFrame.from_ndarray(np.asarray(picture), format="rgb24")
        self._last = max(self._last + 1, round(at_s * _CLOCK))
        frame.pts, frame.time_base = self._last, Fraction(1, _CLOCK)
        self._container.mux(self._stream.encode(frame))

    def save(self, path: Path) -> None:
        """End the video and write it.

        Raises:
            StoreError: the place is full, or may only be read.
            OSError: it cannot be written for another reason.
        """
        self._container.mux(self._stream.encode())
        self._container.close()
        self._file.seek(0)
        Root(path.parent).put(path.name, iter(lambda: self._file.read(_PIECE), b""))

    def close(self) -> None:
        """Forget what was not saved."""
        self._container.close()
        self._file.close()
