"""decord: only in a decoder process, because its native loops cannot be interrupted.

Its last release, 0.6.0, bundles FFmpeg 4.1. Where `decode` does not refuse, its frames were equal
to PyAV's within 2 of 255 on every real file tried. It reports no errors: a file with flipped bits
gives wrong pixels without a word.
"""

from __future__ import annotations

import os
import re
import time
from typing import Any

# Near the end of a file decord spins, and gives up after this many turns, which a busy machine uses
# up sooner: with 256, all five Kinetics clips tried failed. Let it spin: its process can be killed.
os.environ["DECORD_EOF_RETRY_MAX"] = "1000000"

import decord
import numpy as np
import numpy.typing as npt

from pipeline.decode.indexed import (
    ReadFrame,
    check_same_count,
    decode_indexed,
    refusal,
    survey_trusted,
)
from pipeline.decode.request import DecodedVideo, DecodeRequest
from pipeline.errors import ClipStatus, DecodeError

decord.logging.set_level(decord.logging.QUIET)


def decode(request: DecodeRequest) -> DecodedVideo:
    """Decode the clips of one video.

    The reader lives as long as this call: left open, it reads ahead without bound.

    Raises:
        DecodeError: with the status to record; `REFUSED` for what decord gets wrong.
    """
    deadline = time.monotonic() + request.timeout_s
    seen = survey_trusted(request, deadline)
    if seen.num_discarded:
        raise refusal(request, "a video cut by an edit list")
    if seen.num_tracks > 1:  # it picks one by its size, not by what the file says
        raise refusal(request, f"a file with {seen.num_tracks} video tracks")
    try:
        # Absolute, so that no name is taken for a protocol; that it is a video was seen above.
        reader = decord.VideoReader(os.path.abspath(request.path), num_threads=1)  # noqa: PTH100
        check_same_count(request, len(reader), seen)
        return decode_indexed(request, seen, _reading(reader), deadline)
    except decord.DECORDError as error:
        raise DecodeError(
            ClipStatus.DECODE_ERROR, f"decord: {_reason(error, request.path)}"
        ) from error


def _reading(reader: Any) -> ReadFrame:
    def read_frame(index: int) -> npt.NDArray[np.uint8]:
        # One at a time, so that one full frame is held; in ascending order it never seeks back.
        frame: npt.NDArray[np.uint8] = reader.get_batch([index]).asnumpy()[0]
        return frame

    return read_frame


def _reason(error: Exception, path: str) -> str:
    """Decord's message without the clock, the source lines and the path it starts with."""
    text = str(error).replace(f"[{os.path.abspath(path)}] ", "")  # noqa: PTH100
    return re.sub(r"^(\[[\d:]+\] \S+: )*", "", text).split("\n", 1)[0].strip()[:200]
