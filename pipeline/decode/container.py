"""Opening a container with PyAV, and what it says about itself before anything is decoded."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import av
import av.error

from pipeline.decode.messages import reason_of
from pipeline.decode.request import DecodeRequest
from pipeline.decode.resize import check_pixels
from pipeline.decode.source import open_regular
from pipeline.errors import ClipStatus, DecodeError

# Containers of video. Not on the list, on purpose: playlists and scripts (concat, hls, dash), which
# open other files, and still images.
FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,flv,ogg,asf,gif,h264,hevc"


def metadata_options(version: str) -> dict[str, Any]:
    """How this version of PyAV is kept from failing on metadata that is not UTF-8.

    Before 19, the metadata of some real files (HMDB51) raised UnicodeDecodeError; 19 decodes any,
    and no longer takes the option.
    """
    return {} if int(version.split(".")[0]) >= 19 else {"metadata_errors": "replace"}


# A file that ends earlier than this share of its promised length was cut. On 118 healthy files
# nothing came near it; a missing frame or two say nothing in a very short one.
_COMPLETE = 0.97
_MISSING_FRAMES = 1.5


@contextmanager
def open_video(request: DecodeRequest) -> Iterator[tuple[Any, Any]]:
    """Open `request.path`; yields PyAV's (container, best video stream).

    The stream decodes in this thread only: frame threads hide truncation, and can deadlock with
    Python on damaged files.

    Raises:
        DecodeError: the file cannot be opened, is no video, or its frames are too large.
    """
    with open_regular(request.path) as file:
        try:
            container = av.open(
                file,
                options={"format_whitelist": FORMATS},
                **metadata_options(av.__version__),
            )
        except av.error.FFmpegError as error:
            raise DecodeError(
                ClipStatus.DECODE_ERROR, f"not a video: {reason_of(error)}"
            ) from error
        with container:
            stream = container.streams.best("video") if container.streams.video else None
            if stream is None or stream.codec_context is None:
                raise DecodeError(ClipStatus.DECODE_ERROR, "no video stream that can be decoded")
            stream.thread_type = "NONE"
            stream.codec_context.thread_count = 1
            check_pixels(stream.codec_context.height, stream.codec_context.width, request)
            yield container, stream


@dataclass(frozen=True)
class Survey:
    """What a file says about its video stream, and what its packets show; nothing is decoded."""

    container: str
    """FFmpeg's name of the format, `mov,mp4,m4a,3gp,3g2,mj2` for example."""
    has_b_frames: bool
    """Frames are stored in another order than they are shown in."""
    pixel_format: str | None
    """FFmpeg's name of it; None where not even that could be found out."""
    bits: int
    """Bits per channel."""
    has_odd_chroma: bool
    """An odd number of lines, with one line of colour for every two of brightness."""
    num_shown: int
    """Packets whose frames are shown: the number of frames, in most files."""
    num_discarded: int
    """Packets that are decoded and not shown, because an edit list cuts them away."""
    starts_with_keyframe: bool
    """The first packet can be decoded by itself."""
    has_distinct_times: bool
    """Every packet has a presentation time, and no two have the same."""
    is_cut: bool
    """The file ends clearly before its header says."""


def survey(request: DecodeRequest) -> Survey:
    """Read through the video stream once, without decoding (1 to 5 ms for a short clip).

    Raises:
        DecodeError: the file cannot be opened, or has more packets than `request.max_frames`.
    """
    shown = discarded = 0
    starts_with_keyframe = False
    times = set()
    end: float | None = None
    with open_video(request) as (container, stream):
        try:
            for packet in container.demux(stream):
                if packet.size == 0:
                    continue  # the end marker
                if shown + discarded == 0:
                    starts_with_keyframe = packet.is_keyframe
                shown += not packet.is_discard
                discarded += packet.is_discard
                times.add(packet.pts)
                end = later_end(end, packet)
                check_count(shown + discarded, request)
        except av.error.FFmpegError:
            pass  # a damaged end: what came before still counts, and decoding will tell
        context = stream.codec_context
        pixels = context.format
        return Survey(
            container=container.format.name,
            has_b_frames=bool(context.has_b_frames),
            pixel_format=pixels.name if pixels else None,
            bits=max((part.bits for part in pixels.components), default=0) if pixels else 0,
            has_odd_chroma=bool(pixels and context.height % 2 and pixels.chroma_height(2) == 1),
            num_shown=shown,
            num_discarded=discarded,
            starts_with_keyframe=starts_with_keyframe,
            has_distinct_times=None not in times and len(times) == shown + discarded,
            is_cut=is_cut(container, stream, shown, end),
        )


def later_end(end: float | None, item: Any) -> float | None:
    """The later of `end` and the time at which a packet or frame ends, in seconds."""
    if item.pts is None or item.time_base is None:
        return end
    own = float((item.pts + (item.duration or 0)) * item.time_base)
    return own if end is None else max(end, own)


def is_cut(container: Any, stream: Any, num_frames: int, end: float | None) -> bool:
    """Whether the file holds clearly less than its header promises.

    Args:
        container: the open file.
        stream: its video stream.
        num_frames: frames, or packets, found.
        end: seconds at which the last of them ends.
    """
    if container.format.name == "avi":  # where FFmpeg itself corrects the duration
        return _is_short_of(num_frames, stream.frames, 1.0)
    if stream.duration:
        duration = float(stream.duration * stream.time_base)
    elif container.duration and len(container.streams) == 1:  # else another stream may be longer
        duration = container.duration / av.time_base
    else:
        return False
    if end is None or not stream.average_rate:
        return False
    start = float((stream.start_time or 0) * stream.time_base)
    return _is_short_of(end - start, duration, float(1 / stream.average_rate))


def _is_short_of(length: float, promised: float, one_frame: float) -> bool:
    return length < _COMPLETE * promised and promised - length > _MISSING_FRAMES * one_frame


def check_count(num_frames: int, request: DecodeRequest) -> None:
    """Refuse videos above `request.max_frames`.

    Raises:
        DecodeError: `TOO_LARGE`.
    """
    if num_frames > request.max_frames:
        raise DecodeError(
            ClipStatus.TOO_LARGE,
            f"more than the {request.max_frames} frames allowed (max_frames)",
        )


def check_deadline(deadline: float, request: DecodeRequest) -> None:
    """Stop once `time.monotonic()` is past `deadline`.

    Raises:
        DecodeError: `DECODE_TIMEOUT`.
    """
    if time.monotonic() > deadline:
        raise DecodeError(ClipStatus.DECODE_TIMEOUT, f"not decoded within {request.timeout_s:g} s")


def check_not_short(num_frames: int, request: DecodeRequest) -> None:
    """Refuse videos without frames, and those below `request.min_frames`.

    Raises:
        DecodeError: `DECODE_ERROR` or `TOO_SHORT`.
    """
    if num_frames == 0:
        raise DecodeError(ClipStatus.DECODE_ERROR, "no frame could be decoded")
    if num_frames < request.min_frames:
        raise DecodeError(
            ClipStatus.TOO_SHORT,
            f"{num_frames} frame(s), fewer than the {request.min_frames} of one tubelet",
        )
