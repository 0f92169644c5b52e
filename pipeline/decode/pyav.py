"""The default decoder: FFmpeg through PyAV, every frame in output order, in one thread.

Frames are numbered by the order in which the decoder puts them out. Neither headers nor time
stamps number them: the former miscount (every HMDB51 file), the latter are out of order in AVI.

This module must never call `av.logging.set_level`: with it, a damaged file can deadlock.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

import av
import av.error
import numpy as np
import numpy.typing as npt
from av.video.reformatter import VideoReformatter

from pipeline.decode.backends import decode_version
from pipeline.decode.container import (
    Packets,
    check_count,
    check_deadline,
    check_not_short,
    is_cut,
    later_end,
    open_video,
)
from pipeline.decode.orientation import Orientation
from pipeline.decode.request import DecodedVideo, DecodeRequest
from pipeline.decode.resize import ClipFiller, check_pixels
from pipeline.errors import ClipStatus, DecodeError

_MOST_HELD_BYTES = 64 << 20
"""Larger videos are read twice, to be counted and to be decoded."""

_MOST_WAITING_PIXELS = 1 << 24
"""Of frames that wait to be converted together: a tenth faster than each after its decoding, and
never done in vain where the number of frames turns out to be another."""


def decode(request: DecodeRequest) -> DecodedVideo:
    """Decode the clips of one video.

    The packets are read and counted first, whatever the header says. Their number picks the
    frames, the whole video is decoded, and where it makes another number of frames (hidden ones,
    damage) it is decoded once more.

    Raises:
        DecodeError: with the status to record.
    """
    deadline = time.monotonic() + request.timeout_s
    result = _decode_all(request, None, deadline)
    check_not_short(result.num_frames, request)
    if result.num_frames != result.guess:
        result = _decode_all(request, result.num_frames, deadline)
    if result.num_frames != result.guess:
        raise DecodeError(
            ClipStatus.DECODE_ERROR,
            f"decodes differently every time: {result.guess} frames, then {result.num_frames}",
        )
    return DecodedVideo(
        clips=result.filler.whole_clips(),
        num_frames_total=result.num_frames,
        padded=request.is_padded(result.num_frames),
        damaged=result.damaged,
        decoder="pyav",
        decoder_version=decode_version("pyav"),
    )


@dataclass
class _Pass:
    """One decoding of the whole video."""

    guess: int
    filler: ClipFiller
    num_frames: int = 0
    damaged: bool = False


def _decode_all(request: DecodeRequest, guess: int | None, deadline: float) -> _Pass:
    """Decode every frame; fill the clips as if there were `guess`, by default one a packet."""
    with open_video(request) as (container, stream):
        packets = Packets(container, stream, request, deadline)
        if guess is not None:
            return _fill(packets, packets, guess)
        held = _hold(packets)
        if held is not None:
            return _fill(packets, held, packets.num_shown)
    return _decode_all(request, packets.num_shown, deadline)


def _hold(packets: Packets) -> list[Any] | None:
    """All packets; None where they are too large to be held together."""
    held, size = [], 0
    for packet in packets:
        size += packet.size
        if size <= _MOST_HELD_BYTES:
            held.append(packet)
    return held if size <= _MOST_HELD_BYTES else None


def _fill(packets: Packets, source: Iterable[Any], guess: int) -> _Pass:
    """Decode the packets of `source`, and put the wanted frames of `guess` into the clips."""
    request, stream = packets.request, packets.stream
    slots = request.slots(guess)
    filler = ClipFiller(request, slots)
    to_rgb = ToRGB()
    frames = Frames(stream, request, packets.deadline)
    waiting: list[tuple[int, Any]] = []
    most_waiting = 0

    def convert() -> None:
        for number, frame in waiting:
            filler.add(number, to_rgb(frame))
        waiting.clear()

    for index, frame in enumerate(frames.of(source)):
        if index == 0:
            filler.set_first_shape(*to_rgb.begin(frame))
            most_waiting = _MOST_WAITING_PIXELS // (frame.height * frame.width)
        if index in slots:
            to_rgb.check(frame)
            waiting.append((index, frame))
            if len(waiting) > most_waiting:
                convert()
        check_count(index + 1, request)
    if frames.num == guess:
        convert()
    num_errors = frames.num_errors + packets.is_broken
    cut = is_cut(packets.container, stream, frames.num, frames.end)
    return _Pass(guess, filler, frames.num, damaged=num_errors > 0 or cut)


@dataclass
class Frames:
    """The frames of an open video as the decoder puts them out, counted while they are made."""

    stream: Any
    request: DecodeRequest
    deadline: float
    """May be moved while they are made."""
    num: int = 0
    num_errors: int = 0
    """Packets that were no use, and frames that the decoder calls corrupt."""
    end: int | None = None
    """When the last of them ends, in the stream's units; see `later_end`."""

    def of(self, packets: Iterable[Any]) -> Iterator[Any]:
        """Decode packets.

        Raises:
            DecodeError: past the deadline, or a frame has too many pixels.
        """
        for part in chain(packets, [None]):  # None makes the decoder give what it holds back
            check_deadline(self.deadline, self.request)
            try:
                frames = self.stream.decode(part)
            except av.error.EOFError:
                break
            except av.error.InvalidDataError:
                self.num_errors += 1
                continue
            for frame in frames:
                check_pixels(frame.height, frame.width, self.request)
                self.num += 1
                self.num_errors += bool(frame.is_corrupt)
                self.end = later_end(self.end, frame)
                yield frame


class ToRGB:
    """Turns the frames of one video into upright RGB."""

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()
        self._orientation = Orientation()

    def begin(self, first: Any) -> tuple[int, int]:
        """Take the orientation of the first frame for that of all; its height and width as shown.

        Raises:
            DecodeError: an orientation that cannot be made.
        """
        self._orientation = Orientation.of(first)
        return self._orientation.shape(first.height, first.width)

    def check(self, frame: Any) -> None:
        """Refuse a frame that is turned otherwise than the first.

        Raises:
            DecodeError: `REFUSED`.
        """
        if self._orientation != Orientation.of(frame):
            raise DecodeError(
                ClipStatus.REFUSED,
                "its display matrix changes within the video: re-encode it upright",
            )

    def __call__(self, frame: Any) -> npt.NDArray[np.uint8]:
        """A frame as uint8 (H, W, 3)."""
        rgb: Any = self._reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray()
        return self._orientation.upright(rgb)  # type: ignore[no-any-return]
