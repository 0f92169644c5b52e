"""Opening a file that may be anything, and what a video says before anything is decoded."""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

import av
import av.error

from pipeline.decode.request import DecodeRequest
from pipeline.decode.resize import check_pixels
from pipeline.errors import ClipStatus, DecodeError, reason_of

# Containers of video. Not on the list, on purpose: playlists and scripts (concat, hls, dash), which
# open other files, and still images.
FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,flv,ogg,asf,gif,h264,hevc"

_ABSENT = (errno.ENOENT, errno.ENOTDIR)


def open_regular(path: str) -> BinaryIO:
    """Open a regular, non-empty file for reading.

    Decoders get this object and not the path, so that no name is taken for a protocol
    (`concat:...`), and none waits for the writer of a named pipe.

    Raises:
        DecodeError: `MISSING_FILE`; `UNREADABLE` for a directory, a pipe, a device, a loop of
            links or a denied permission; `DECODE_ERROR` for an empty file.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        descriptor = os.open(path, flags)
    except OSError as error:
        if error.errno in _ABSENT:
            raise DecodeError(ClipStatus.MISSING_FILE, "no such file") from error
        reason = os.strerror(error.errno) if error.errno else type(error).__name__
        raise DecodeError(ClipStatus.UNREADABLE, f"cannot be opened: {reason}") from error
    except ValueError as error:  # a NUL in the name
        raise DecodeError(ClipStatus.UNREADABLE, f"not a file name: {path!r}") from error
    state = os.fstat(descriptor)
    if stat.S_ISREG(state.st_mode) and state.st_size > 0:
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    if not stat.S_ISREG(state.st_mode):
        raise DecodeError(ClipStatus.UNREADABLE, f"not a regular file but {_kind(state.st_mode)}")
    raise DecodeError(ClipStatus.DECODE_ERROR, "the file is empty (0 bytes)")


def _kind(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "a directory"
    if stat.S_ISFIFO(mode):
        return "a named pipe"
    return "a device or a socket"


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

# A picture of MPEG-4 begins with a code of 4 bytes. Every video of HMDB51 has a packet of 1 byte
# before its first B-frame, which DivX left there for an editing program.
_SMALLEST_PACKET = {"mpeg4": 5}


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
            yield container, video_stream(container, request)


def video_stream(container: Any, request: DecodeRequest) -> Any:
    """The best video stream of an open container, set to decode in one thread.

    Raises:
        DecodeError: it has none, or its frames are too large.
    """
    stream = container.streams.best("video") if container.streams.video else None
    if stream is None or stream.codec_context is None:
        raise DecodeError(ClipStatus.DECODE_ERROR, "no video stream that can be decoded")
    stream.thread_type = "NONE"
    stream.codec_context.thread_count = 1
    check_pixels(stream.codec_context.height, stream.codec_context.width, request)
    return stream


@dataclass
class Packets:
    """The packets of an open video, in the order of the file, counted while they are read."""

    container: Any
    stream: Any
    request: DecodeRequest
    deadline: float
    num_read: int = 0
    num_discarded: int = 0
    """Packets that are decoded and not shown, because an edit list cuts them away."""
    num_empty: int = 0
    """Packets too small for a picture."""
    is_broken: bool = False
    """The container can be read no further, and more was promised."""

    @property
    def num_shown(self) -> int:
        """Packets whose frames are shown: the number of frames, in most files."""
        return self.num_read - self.num_discarded - self.num_empty

    def __iter__(self) -> Iterator[Any]:
        """Read on.

        Raises:
            DecodeError: past the deadline, or above `max_frames`.
        """
        smallest = _SMALLEST_PACKET.get(self.stream.codec_context.name, 0)
        packets = self.container.demux(self.stream)
        while True:
            check_deadline(self.deadline, self.request)
            try:
                packet = next(packets, None)
            except av.error.InvalidDataError:
                self.is_broken = True
                return
            if packet is None or packet.size == 0:  # PyAV's mark of the end
                return
            self.num_read += 1
            if packet.is_discard:
                self.num_discarded += 1
            elif packet.size < smallest:
                self.num_empty += 1
            check_count(self.num_shown, self.request)
            yield packet


def later_end(end: int | None, item: Any) -> int | None:
    """The later of `end` and the time at which a packet or frame ends, in the stream's units."""
    if item.pts is None:
        return end
    own: int = item.pts + (item.duration or 0)
    return own if end is None else max(end, own)


def is_cut(container: Any, stream: Any, num_frames: int, end: int | None) -> bool:
    """Whether the file holds clearly less than its header promises.

    Args:
        container: the open file.
        stream: its video stream.
        num_frames: frames, or packets, found.
        end: when the last of them ends, in the stream's units.
    """
    if container.format.name == "avi":  # where FFmpeg itself corrects the duration
        return _is_short_of(num_frames, stream.frames, 1.0)
    if end is None or not stream.average_rate:
        return False
    start = float((stream.start_time or 0) * stream.time_base)
    if stream.duration:
        duration = float(stream.duration * stream.time_base)
    elif container.duration and len(container.streams) == 1:  # else another stream may be longer
        # In Matroska FFmpeg's writer counts it from time 0, and others from the first frame: the
        # shorter promise is the one that a whole file is sure to keep.
        duration = container.duration / av.time_base
        duration -= start if 0 < start < duration else 0
    else:
        return False
    length = float(end * stream.time_base) - start
    return _is_short_of(length, duration, float(1 / stream.average_rate))


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
