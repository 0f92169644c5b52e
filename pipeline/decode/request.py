"""What is asked of a decoder, and what it gives back."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.clips.views import Sampling, View, frame_indices
from pipeline.config import DECODERS, RunConfig
from pipeline.errors import ConfigError

Slots = dict[int, list[tuple[int, int, View]]]
"""For each wanted frame: the (view number, position in the clip, view) it goes to."""


@dataclass(frozen=True, kw_only=True)
class DecodeRequest:
    """One video and the views wanted of it; all of them are decoded in one pass.

    Raises:
        ConfigError: a field is outside its range; the message names field and rule.
    """

    path: str
    """The video file."""
    views: tuple[View, ...] = (View(),)
    """The clips wanted, in the order in which they are returned."""
    num_frames: int = 16
    """Frames per clip."""
    size: int = 224
    """Side of the square crop, in pixels."""
    short_side: int = 224
    """Short side of the resized frame, in pixels; at least `size`."""
    sampling: str = "uniform"
    """`uniform`, or `stride:N`."""
    decoder: str = "pyav"
    """The backend."""
    timeout_s: float = RunConfig.decode_timeout_s
    """Seconds this video may take."""
    max_pixels: int = RunConfig.max_pixels
    """Largest frame decoded, in pixels, before and after resizing."""
    max_frames: int = RunConfig.max_frames
    """Longest video decoded, in frames."""
    min_frames: int = 2
    """Shortest video accepted, in frames: one tubelet."""

    def __post_init__(self) -> None:
        Sampling.parse(self.sampling)
        if self.decoder not in DECODERS:
            raise ConfigError(f"decoder must be one of {', '.join(DECODERS)}, got {self.decoder!r}")
        if not self.views:
            raise ConfigError("views must name at least one view, got none")
        for name in ("num_frames", "size", "max_pixels", "max_frames", "min_frames"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)!r}")
        if self.short_side < self.size:
            raise ConfigError(
                f"short_side must be at least size ({self.size}), got {self.short_side!r}"
            )
        if not self.timeout_s > 0:
            raise ConfigError(f"timeout_s must be above 0 seconds, got {self.timeout_s!r}")

    def slots(self, num_total: int) -> Slots:
        """Where each needed frame of a video of `num_total` frames goes; empty for 0 frames."""
        slots: Slots = defaultdict(list)
        if num_total < 1:
            return slots
        for number, view in enumerate(self.views):
            indices = frame_indices(
                num_total, self.num_frames, self.sampling, view.segment, view.num_segments
            )
            for position, index in enumerate(indices.tolist()):
                slots[index].append((number, position, view))
        return slots

    def empty_clips(self) -> npt.NDArray[np.uint8]:
        """Room for the result, uint8 (views, num_frames, size, size, 3), whatever lay there."""
        shape = (len(self.views), self.num_frames, self.size, self.size, 3)
        return np.empty(shape, dtype=np.uint8)

    def is_padded(self, num_total: int) -> bool:
        """Whether a clip of a video of `num_total` frames shows some frame more than once."""
        view = self.views[0]
        indices = frame_indices(
            num_total, self.num_frames, self.sampling, view.segment, view.num_segments
        )
        return len(np.unique(indices)) < self.num_frames


@dataclass(frozen=True, kw_only=True)
class DecodedVideo:
    """The clips of one video, and what was seen while decoding it."""

    clips: npt.NDArray[np.uint8]
    """RGB, uint8 (views, num_frames, size, size, 3)."""
    num_frames_total: int
    """Frames in the video, counted by decoding and not read from its header."""
    padded: bool
    """The video is too short: its clips show some frames more than once."""
    damaged: bool
    """The decoder reported errors or corrupt frames, or the file ends before its header says.

    The clips are complete, but what they show may be wrong. VP9 has no redundancy to find errors
    by, and decord and torchcodec report none: there, only a file that ends early is flagged.
    """
    decoder: str
    """The backend."""
    decoder_version: str
    """`decode_version(decoder)`."""
