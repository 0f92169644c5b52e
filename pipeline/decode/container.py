"""Opening a container with PyAV, and what it says about itself before anything is decoded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import av
import av.error

from pipeline.decode.request import DecodeRequest
from pipeline.decode.resize import check_pixels
from pipeline.decode.source import open_regular
from pipeline.errors import ClipStatus, DecodeError

# Containers of video. Not on the list, on purpose: playlists and scripts (concat, hls, dash), which
# open other files, and still images.
FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,flv,ogg,asf,gif,h264,hevc"

# Removed in PyAV 19; before, the metadata of some real files (HMDB51) raised UnicodeDecodeError.
_METADATA: dict[str, Any] = (
    {} if int(av.__version__.split(".")[0]) >= 19 else {"metadata_errors": "replace"}
)


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
            container = av.open(file, options={"format_whitelist": FORMATS}, **_METADATA)
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
class Packets:
    """The packets of a video stream, counted without decoding."""

    shown: int
    """Packets whose frames are shown: the number of frames, in most files."""
    discarded: int
    """Packets that are decoded and not shown, because an edit list cuts them away."""


def count_packets(container: Any, stream: Any, request: DecodeRequest) -> Packets:
    """Read through the stream once (1 to 5 ms for a short clip); leaves it at its end.

    Raises:
        DecodeError: `TOO_LARGE` for more packets than `request.max_frames`.
    """
    shown = discarded = 0
    try:
        for packet in container.demux(stream):
            if packet.size == 0:
                continue  # the end marker
            if packet.is_discard:
                discarded += 1
            else:
                shown += 1
            check_count(shown + discarded, request)
    except av.error.FFmpegError:
        pass  # a damaged end: what came before still counts, and decoding will tell
    return Packets(shown, discarded)


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


def reason_of(error: Exception) -> str:
    """FFmpeg's own words. PyAV's also name the open file by its descriptor, which varies."""
    return getattr(error, "strerror", None) or type(error).__name__
