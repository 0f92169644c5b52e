"""What decord and torchcodec have in common: frames by index, right only in well-kept files.

Both find a frame through the container's index and time stamps. Where those are missing, wrong or
say something else than the order of output, they return other frames without a word. Such files
are refused, by rules that were measured against a sequential decode of real files.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import av.error
import numpy as np
import numpy.typing as npt
from av.stream import Disposition

from pipeline.decode.backends import decode_version
from pipeline.decode.container import (
    Packets,
    check_deadline,
    check_not_short,
    is_cut,
    later_end,
    open_video,
)
from pipeline.decode.orientation import Orientation
from pipeline.decode.request import DecodedVideo, DecodeRequest
from pipeline.decode.resize import ClipFiller
from pipeline.errors import ClipStatus, DecodeError

# The containers with an index of their frames; in MPEG streams both libraries seek to wrong ones.
_MP4 = "mov,mp4,m4a,3gp,3g2,mj2"
_FORMATS = (_MP4, "matroska,webm", "avi")

ReadFrame = Callable[[int], npt.NDArray[np.uint8]]
"""Frame number to uint8 RGB (H, W, 3), upright."""


def decode_indexed(
    request: DecodeRequest, seen: Survey, read_frame: ReadFrame, deadline: float
) -> DecodedVideo:
    """Fill the clips of one video by asking for its frames in ascending order.

    Raises:
        DecodeError: the deadline passed between two frames, or the frames have another shape than
            they are to be shown in.
    """
    slots = request.slots(seen.num_shown)
    filler = ClipFiller(request, slots)
    for position, index in enumerate(sorted(slots)):
        check_deadline(deadline, request)
        frame = read_frame(index)
        if position == 0:
            if frame.shape[:2] != seen.shape:
                (height, width), (h, w) = seen.shape, frame.shape[:2]
                raise refusal(request, f"a video of {width}x{height}, of which it makes {w}x{h}")
            filler.set_first_shape(*seen.shape)
        filler.add(index, frame)
    return DecodedVideo(
        clips=filler.whole_clips(),
        num_frames_total=seen.num_shown,
        padded=request.is_padded(seen.num_shown),
        damaged=seen.is_cut,
        decoder=request.decoder,
        decoder_version=decode_version(request.decoder),
    )


@dataclass(frozen=True)
class Survey:
    """What a file says about its video stream, and what its packets and first frame show."""

    container: str
    """FFmpeg's name of the format, `mov,mp4,m4a,3gp,3g2,mj2` for example."""
    stream_index: int
    """Of the stream that FFmpeg takes for the video, among all streams."""
    num_tracks: int
    """Video streams, cover pictures aside."""
    has_b_frames: bool
    """Frames are stored in another order than they are shown in."""
    pixel_format: str | None
    """FFmpeg's name of it; None where not even that could be found out."""
    bits: int
    """Bits per channel."""
    has_odd_chroma: bool
    """An odd number of lines, with one line of colour for every two of brightness."""
    num_shown: int
    """Packets whose frames are shown."""
    num_discarded: int
    """Packets that are decoded and not shown."""
    starts_with_keyframe: bool
    """The first packet can be decoded by itself."""
    has_distinct_times: bool
    """Every packet has a presentation time, and no two have the same."""
    is_cut: bool
    """The file ends clearly before its header says."""
    orientation: Orientation
    """How the first frame is to be shown."""
    shape: tuple[int, int]
    """Height and width of the first frame as shown."""


def survey(request: DecodeRequest, deadline: float) -> Survey:
    """Read through the video stream once; nothing but its first frame is decoded.

    Raises:
        DecodeError: the file cannot be opened, has too many frames or too few, or is to be shown
            in an orientation that cannot be made.
    """
    times = set()
    starts_with_keyframe = False
    first: Any = None
    end: int | None = None
    with open_video(request) as (container, stream):
        context = stream.codec_context
        has_b_frames, pixels, height = bool(context.has_b_frames), context.format, context.height
        packets = Packets(container, stream, request, deadline)
        for number, packet in enumerate(packets):
            if number == 0:
                starts_with_keyframe = packet.is_keyframe
            times.add(packet.pts)
            end = later_end(end, packet)
            first = first or _decode_one(stream, packet)
        first = first or _decode_one(stream, None)
        check_not_short(packets.num_shown if first else 0, request)
        orientation = Orientation.of(first)
        return Survey(
            container=container.format.name,
            stream_index=stream.index,
            num_tracks=sum(
                not track.disposition & Disposition.attached_pic
                for track in container.streams.video
            ),
            has_b_frames=has_b_frames,
            pixel_format=pixels.name if pixels else None,
            bits=max((part.bits for part in pixels.components), default=0) if pixels else 0,
            has_odd_chroma=bool(pixels and height % 2 and pixels.chroma_height(2) == 1),
            num_shown=packets.num_shown,
            num_discarded=packets.num_discarded,
            starts_with_keyframe=starts_with_keyframe,
            has_distinct_times=None not in times and len(times) == packets.num_read,
            is_cut=packets.is_broken or is_cut(container, stream, packets.num_shown, end),
            orientation=orientation,
            shape=orientation.shape(first.height, first.width),
        )


def _decode_one(stream: Any, packet: Any) -> Any:
    """A frame that comes out with this packet; None where there is none."""
    try:
        return next(iter(stream.decode(packet)), None)
    except (av.error.InvalidDataError, av.error.EOFError):
        return None


def survey_trusted(request: DecodeRequest, deadline: float) -> Survey:
    """Refuse the files for which an indexed reader gives other frames, or other pixels.

    Raises:
        DecodeError: `REFUSED`, with the reason.
    """
    seen = survey(request, deadline)
    if seen.container not in _FORMATS:
        raise refusal(request, f"the container {seen.container}")
    if seen.container == "avi" and seen.has_b_frames:
        raise refusal(request, "an AVI file with B-frames")
    if not seen.starts_with_keyframe:
        raise refusal(request, "a video that does not start with a key frame")
    if not seen.has_distinct_times:
        raise refusal(request, "a video with missing or repeated time stamps")
    if seen.bits > 8:
        raise refusal(request, f"more than 8 bits per channel ({seen.pixel_format})")
    if seen.has_odd_chroma:
        raise refusal(request, f"an odd number of lines in {seen.pixel_format}")
    if seen.orientation.is_mirrored:
        raise refusal(request, "a video that is to be shown mirrored")
    if seen.orientation != Orientation() and seen.container != _MP4:
        raise refusal(request, f"a video that is to be shown turned, in {seen.container}")
    return seen


def check_same_count(request: DecodeRequest, num_frames: int, seen: Survey) -> None:
    """Refuse the files for which the library counts other frames than their packets show.

    Raises:
        DecodeError: `REFUSED`.
    """
    if num_frames != seen.num_shown:
        raise refusal(
            request,
            f"a video of {seen.num_shown} frames, of which {request.decoder} makes {num_frames}",
        )


def refusal(request: DecodeRequest, what: str) -> DecodeError:
    """The error for a file that this decoder is known to read wrongly."""
    return DecodeError(
        ClipStatus.REFUSED,
        f"{request.decoder} is known to return wrong frames or colours for {what}: "
        "use --decoder pyav",
    )
