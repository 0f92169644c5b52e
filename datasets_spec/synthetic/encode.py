"""Writes frames as a VP9 `.webm`, the same bytes every time, and never a half-written file."""

from __future__ import annotations

import os
from pathlib import Path

import av
import numpy as np

FRAMES_PER_SECOND = 12
"""SSv2's frame rate."""

# One thread and no look-ahead: the encoder's output then depends on the frames alone.
_ENCODER = {
    "deadline": "realtime",
    "cpu-used": "8",
    "crf": "24",
    "b": "0",
    "row-mt": "0",
    "lag-in-frames": "0",
    "auto-alt-ref": "0",
}
_MUXER = {"fflags": "+bitexact"}  # no random segment id, no version of the writing library


def write_webm(path: Path, frames: np.ndarray) -> None:
    """Encodes uint8 RGB frames `(num_frames, height, width, 3)`; the file appears when complete.

    Raises:
        OSError: the folder cannot be written, or the disk is full.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with av.open(str(temporary), "w", format="webm", options=_MUXER) as container:
            stream = container.add_stream("libvpx-vp9", FRAMES_PER_SECOND, options=_ENCODER)
            stream.height, stream.width = frames.shape[1:3]
            stream.pix_fmt = "yuv420p"
            stream.thread_count = 1
            for image in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            container.mux(stream.encode())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
