"""torchcodec, in its exact mode: scans the whole file first, then seeks.

It needs the FFmpeg libraries of the system (4 to 9). It reports no errors in the data.
"""

from __future__ import annotations

import time

import numpy as np
import numpy.typing as npt
from torchcodec.decoders import VideoDecoder

from pipeline.decode.container import open_regular
from pipeline.decode.indexed import check_same_count, decode_indexed, survey_trusted
from pipeline.decode.request import DecodedVideo, DecodeRequest


def decode(request: DecodeRequest) -> DecodedVideo:
    """Decode the clips of one video.

    Raises:
        DecodeError: with the status to record; `REFUSED` for what torchcodec gets wrong.
    """
    deadline = time.monotonic() + request.timeout_s
    seen = survey_trusted(request, deadline)
    with open_regular(request.path) as file:
        reader = VideoDecoder(
            file,
            stream_index=seen.stream_index,
            dimension_order="NHWC",
            num_ffmpeg_threads=1,
            seek_mode="exact",
        )

        def read_frame(index: int) -> npt.NDArray[np.uint8]:
            frame: npt.NDArray[np.uint8] = reader.get_frame_at(index).data.numpy()
            return frame

        check_same_count(request, len(reader), seen)
        return decode_indexed(request, seen, read_frame, deadline)
