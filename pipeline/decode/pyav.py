"""The default decoder: FFmpeg through PyAV, every frame in output order, in one thread.

Frames are numbered by the order in which the decoder puts them out. Neither headers nor time
stamps number them: the former miscount (every HMDB51 file), the latter are out of order in AVI.

This module must never call `av.logging.set_level`: with it, a damaged file can deadlock.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import av
import av.error
import numpy as np
from av.video.reformatter import VideoReformatter

from pipeline.decode.container import (
    check_count,
    check_deadline,
    check_not_short,
    is_cut,
    later_end,
    open_video,
    survey,
)
from pipeline.decode.request import DecodedVideo, DecodeRequest
from pipeline.decode.resize import ClipFiller, check_pixels
from pipeline.decode.version import decode_version
from pipeline.errors import ClipStatus, DecodeError


def decode(request: DecodeRequest) -> DecodedVideo:
    """Decode the clips of one video.

    Headers only guess the number of frames. The guess picks the frames, the whole video is decoded
    and counted, and where the guess was wrong (8 % of real files) it is decoded once more.

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
        clips=result.filler.clips,
        num_frames_total=result.num_frames,
        padded=request.is_padded(result.num_frames),
        damaged=result.damaged,
        rotation=result.rotation,
        decoder="pyav",
        decoder_version=decode_version("pyav"),
    )


@dataclass
class _Pass:
    """One decoding of the whole video."""

    guess: int
    filler: ClipFiller
    num_frames: int = 0
    num_errors: int = 0
    rotation: int = 0
    damaged: bool = False


def _decode_all(request: DecodeRequest, guess: int | None, deadline: float) -> _Pass:
    """Decode every frame; fill the clips as if there were `guess`, by default what headers say."""
    to_rgb = VideoReformatter()
    with open_video(request) as (container, stream):
        if guess is None:
            guess = stream.frames or survey(request).num_shown
            check_count(guess, request)
        slots = request.slots(guess)
        result = _Pass(guess, ClipFiller(request, slots))
        end: float | None = None
        for frame in _frames(container, stream, request, deadline, result):
            index = result.num_frames
            result.num_frames += 1
            check_count(result.num_frames, request)
            check_pixels(frame.height, frame.width, request)
            turns = round(frame.rotation / 90) % 4
            if index == 0:
                result.rotation = turns * 90
                shape = frame.height, frame.width
                result.filler.set_first_shape(*(shape[::-1] if turns % 2 else shape))
            if index in slots:
                rgb = to_rgb.reformat(frame, format="rgb24", threads=1).to_ndarray()
                result.filler.add(index, np.rot90(rgb, turns))
            result.num_errors += bool(frame.is_corrupt)
            end = later_end(end, frame)
        result.damaged = result.num_errors > 0 or is_cut(container, stream, result.num_frames, end)
        return result


def _frames(
    container: Any, stream: Any, request: DecodeRequest, deadline: float, result: _Pass
) -> Iterator[Any]:
    """All frames in output order; damage is counted in `result` and does not end it."""
    packets = container.demux(stream)
    is_last = False
    while not is_last:
        check_deadline(deadline, request)
        try:
            packet = next(packets, None)
        except av.error.InvalidDataError:  # the container is broken from here on
            result.num_errors += 1
            packet = None
        is_last = packet is None or packet.size == 0  # makes the decoder give what it holds back
        try:
            yield from stream.decode(packet)
        except av.error.EOFError:
            return
        except av.error.InvalidDataError:
            result.num_errors += 1
