"""From a decoded frame to the pixels a backbone's own processor would give it, bit for bit."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from pipeline.clips.views import crop_box, resized_shape
from pipeline.decode.request import DecodeRequest, Slots
from pipeline.errors import ClipStatus, DecodeError


def resize_frame(frame: npt.NDArray[np.uint8], height: int, width: int) -> npt.NDArray[np.uint8]:
    """Resize uint8 RGB (H, W, 3) to (height, width, 3), bilinear and antialiased.

    The same bytes as `transformers.VideoMAEImageProcessor`: it calls this kernel too, on a
    contiguous channels-first copy that makes it four times slower. In and out the channels come
    last, which torch sees only where the first dimension is there before they are moved.
    """
    image = torch.from_numpy(np.ascontiguousarray(frame))[None].permute(0, 3, 1, 2)
    resized = F.interpolate(
        image, size=(height, width), mode="bilinear", antialias=True, align_corners=False
    )
    return resized[0].permute(1, 2, 0).numpy()


class ClipFiller:
    """Puts the frames of one video into its clips, one at a time, so that no full frame is kept.

    `clips` is not cleared before: a fifth of a millisecond for a clip of 16 frames of 224 pixels.

    Every frame is resized to the shape that the video's first frame resizes to, also where the
    frame size changes in mid-stream: all frames of a clip then share one crop.
    """

    def __init__(self, request: DecodeRequest, slots: Slots) -> None:
        self.clips = request.empty_clips()
        self._request = request
        self._slots = slots
        self._waits_for = set(slots)

    def set_first_shape(self, height: int, width: int) -> None:
        """Tell the shape of the video's first frame, as it is shown (turned upright).

        Raises:
            DecodeError: once resized it would be above the cap (a very long, thin frame).
        """
        self._shape = resized_shape(height, width, self._request.short_side)
        check_pixels(*self._shape, self._request, "a resized frame")

    def add(self, index: int, frame: npt.NDArray[np.uint8]) -> None:
        """Resize frame `index`, uint8 RGB (H, W, 3), and copy its crops to where they belong."""
        height, width = self._shape
        resized = resize_frame(frame, height, width)
        size = self._request.size
        for number, position, view in self._slots[index]:
            top, left = crop_box(height, width, size, view.crop, view.num_crops)
            self.clips[number, position] = resized[top : top + size, left : left + size]
        self._waits_for.discard(index)

    def whole_clips(self) -> npt.NDArray[np.uint8]:
        """The clips, uint8 (views, num_frames, size, size, 3), once every frame was added.

        Raises:
            DecodeError: one was not, and its pixels would be whatever lay in memory.
        """
        if self._waits_for:
            raise DecodeError(
                ClipStatus.DECODE_ERROR, f"frame {min(self._waits_for)} never came out"
            )
        return self.clips


def check_pixels(height: int, width: int, request: DecodeRequest, what: str = "a frame") -> None:
    """Refuse frames above `request.max_pixels`.

    Raises:
        DecodeError: `TOO_LARGE`.
    """
    if height * width > request.max_pixels:
        raise DecodeError(
            ClipStatus.TOO_LARGE,
            f"{what} has {width}x{height} pixels, more than the {request.max_pixels} allowed "
            "(max_pixels)",
        )
