"""Which frames and which pixels a clip takes from its video: pure arithmetic, no decoding.

A *view* is one pair (temporal segment, spatial crop) of a video, and one clip. All positions are
exact integers, so that no platform's rounding can move a frame.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.errors import ConfigError


@dataclass(frozen=True)
class Sampling:
    """How the frames of a clip are spread over its video.

    `stride` None takes them evenly from the whole video (`uniform`); a number takes every
    `stride`-th frame of a window (`stride:N`).
    """

    stride: int | None = None

    @classmethod
    def parse(cls, text: str) -> Sampling:
        """Read `uniform` or `stride:N`.

        Raises:
            ConfigError: `text` is neither, or N is not at least 1.
        """
        if text == "uniform":
            return cls()
        match = re.fullmatch(r"stride:([1-9][0-9]{0,5})", text)
        if match is None:
            raise ConfigError(
                f"sampling must be `uniform` or `stride:N` with N at least 1, got {text!r}"
            )
        return cls(int(match[1]))


@dataclass(frozen=True, order=True)
class View:
    """One (segment, crop) of a video, out of `num_segments` by `num_crops`."""

    segment: int = 0
    crop: int = 0
    num_segments: int = 1
    num_crops: int = 1

    def __post_init__(self) -> None:
        if not (0 <= self.segment < self.num_segments and 0 <= self.crop < self.num_crops):
            raise ConfigError(f"no such view: {self!r}")


def list_views(num_segments: int, num_crops: int) -> tuple[View, ...]:
    """All views of a video, crops running fastest."""
    return tuple(
        View(segment, crop, num_segments, num_crops)
        for segment in range(num_segments)
        for crop in range(num_crops)
    )


def parse_views(text: str) -> tuple[int, int]:
    """Read `2x3` as (2 segments, 3 crops).

    Raises:
        ConfigError: `text` is not of that form, or a number is 0.
    """
    match = re.fullmatch(r"([1-9][0-9]{0,3})x([1-9][0-9]{0,3})", text)
    if match is None:
        raise ConfigError(f"views must be SEGMENTSxCROPS such as 2x3, got {text!r}")
    return int(match[1]), int(match[2])


def frame_indices(
    num_total: int,
    num_frames: int,
    sampling: str = "uniform",
    segment: int = 0,
    num_segments: int = 1,
) -> npt.NDArray[np.int64]:
    """The frames one temporal segment takes, as ordinals in output order.

    `uniform` cuts the video into `num_frames` equal parts and takes one frame of each. A single
    segment takes the middle one (the test rule of TSN and of VideoMAE's SSv2 code); segment `s` of
    `S` lies `s / S` into every part, which for two segments is VideoMAE's pair of starts and
    middles (`ssv2.py`, `mode == "test"`).

    `stride:N` takes every N-th frame of a window. The windows of several segments are spread
    evenly from the first to the last possible one, on multiples of N (VideoMAE's `kinetics.py`,
    `mode == "test"`); a single segment takes the centre one (SlowFast).

    A video too short for `num_frames` different frames repeats some: `uniform` by the same
    rounding, `stride:N` by repeating the last one, as VideoMAE does.

    Args:
        num_total: frames in the video, at least 1.
        num_frames: frames in the clip.
        sampling: `uniform` or `stride:N`.
        segment: which temporal segment.
        num_segments: how many there are.

    Returns:
        int64 (num_frames,), ascending, within [0, num_total).

    Raises:
        ConfigError: a number out of range.
    """
    if num_total < 1 or num_frames < 1 or not 0 <= segment < num_segments:
        raise ConfigError(
            f"cannot pick {num_frames} frames of {num_total} for segment {segment} of "
            f"{num_segments}"
        )
    stride = Sampling.parse(sampling).stride
    position = np.arange(num_frames, dtype=np.int64)
    if stride is None:
        if num_segments == 1:
            return (2 * position + 1) * num_total // (2 * num_frames)
        return (position * num_segments + segment) * num_total // (num_frames * num_segments)
    num_strided = -(-num_total // stride)
    slack = max(num_strided - num_frames, 0)
    start = slack // 2 if num_segments == 1 else segment * slack // (num_segments - 1)
    return np.minimum(start + position, num_strided - 1) * stride


def resized_shape(height: int, width: int, short_side: int) -> tuple[int, int]:
    """Height and width once the short side is `short_side`; the long side is rounded down.

    The rule of Hugging Face's `get_resize_output_image_size`.
    """
    if height <= width:
        return short_side, short_side * width // height
    return short_side * height // width, short_side


def crop_box(
    height: int, width: int, size: int, crop: int = 0, num_crops: int = 1
) -> tuple[int, int]:
    """Top and left of the square of `size` pixels that crop `crop` of `num_crops` takes.

    One crop is the centre, rounded down as Hugging Face's processor does (torchvision's
    `CenterCrop` rounds half to even and is off by one for some sizes). Several are spread evenly
    along the longer side from its start to its end: left, centre, right, or top, centre, bottom.

    Raises:
        ConfigError: the frame is smaller than the crop, or there is no such crop.
    """
    if size > min(height, width) or not 0 <= crop < num_crops:
        raise ConfigError(
            f"no crop {crop} of {num_crops} with {size} pixels in a frame of {height}x{width}"
        )
    top, left = (height - size) // 2, (width - size) // 2
    if num_crops == 1:
        return top, left
    if height > width:
        return crop * (height - size) // (num_crops - 1), left
    return top, crop * (width - size) // (num_crops - 1)
