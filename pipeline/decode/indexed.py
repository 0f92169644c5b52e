"""What decord and torchcodec have in common: frames by index, right only in well-kept files.

Both find a frame through the container's index and time stamps. Where those are missing, wrong or
say something else than the order of output, they return other frames without a word. Such files
are refused, by rules that were measured against a sequential decode of real files.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from pipeline.decode.container import (
    Survey,
    check_deadline,
    check_not_short,
    open_video,
    survey,
)
from pipeline.decode.request import DecodedVideo, DecodeRequest
from pipeline.decode.resize import ClipFiller
from pipeline.decode.version import decode_version
from pipeline.errors import ClipStatus, DecodeError

# The containers with an index of their frames; in MPEG streams both libraries seek to wrong ones.
_FORMATS = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "avi")

ReadFrame = Callable[[int], npt.NDArray[np.uint8]]
"""Frame number to uint8 RGB (H, W, 3), upright."""


def decode_indexed(
    request: DecodeRequest, seen: Survey, read_frame: ReadFrame, deadline: float
) -> DecodedVideo:
    """Fill the clips of one video by asking for its frames in ascending order.

    Raises:
        DecodeError: the deadline passed between two frames, or the video is too short.
    """
    check_not_short(seen.num_shown, request)
    slots = request.slots(seen.num_shown)
    filler = ClipFiller(request, slots)
    for position, index in enumerate(sorted(slots)):
        check_deadline(deadline, request)
        frame = read_frame(index)
        if position == 0:
            filler.set_first_shape(*frame.shape[:2])
        filler.add(index, frame)
    return DecodedVideo(
        clips=filler.clips,
        num_frames_total=seen.num_shown,
        padded=request.is_padded(seen.num_shown),
        damaged=seen.is_cut,
        rotation=_rotation(request),
        decoder=request.decoder,
        decoder_version=decode_version(request.decoder),
    )


def survey_trusted(request: DecodeRequest) -> Survey:
    """Refuse the files for which an indexed reader gives other frames, or other colours.

    Raises:
        DecodeError: `REFUSED`, with the reason.
    """
    seen = survey(request)
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


def _rotation(request: DecodeRequest) -> int:
    """The turn that the library has applied by itself, read from the first frame."""
    with open_video(request) as (container, stream):
        return round(next(container.decode(stream)).rotation / 90) % 4 * 90
