"""Writes frames as a video file, the same bytes every time, and never a half-written file."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np

from datasets_spec.errors import DatasetSpecError

FRAMES_PER_SECOND = 12
"""SSv2's frame rate."""


@dataclass(frozen=True)
class Codec:
    """How a codec's files are written.

    Attributes:
        encoder: FFmpeg's name of it.
        container: FFmpeg's name of the file format.
        extension: of the file, without the dot.
        options: of the encoder. One thread and no look-ahead: its output then depends on the frames
            alone.
    """

    encoder: str
    container: str
    extension: str
    options: dict[str, str]


CODECS = {
    "vp9": Codec(
        "libvpx-vp9",
        "webm",
        "webm",
        {
            "deadline": "realtime",
            "cpu-used": "8",
            "crf": "24",
            "b": "0",
            "row-mt": "0",
            "lag-in-frames": "0",
            "auto-alt-ref": "0",
        },
    ),
    "h264": Codec("libx264", "mp4", "mp4", {"crf": "20", "rc-lookahead": "0", "mbtree": "0"}),
}
"""VP9 is SSv2's. H.264 carries motion vectors that FFmpeg gives away."""
DEFAULT_CODEC = "vp9"
_MUXER = {"fflags": "+bitexact"}  # no random segment id, no version of the writing library


def find_codec(name: str) -> Codec:
    """The codec of a name.

    Raises:
        DatasetSpecError: an unknown name, or this PyAV's FFmpeg was built without its encoder.
    """
    if name not in CODECS:
        raise DatasetSpecError(f"codec must be one of {', '.join(CODECS)}, got {name!r}")
    codec = CODECS[name]
    if codec.encoder not in av.codecs_available:
        raise DatasetSpecError(
            f"the FFmpeg of this PyAV ({av.__version__}) has no encoder {codec.encoder}, which "
            f"{name} needs: install PyAV's own wheel (pip install av), or render with another codec"
        )
    return codec


def write_video(path: Path, frames: np.ndarray, codec: Codec) -> None:
    """Encodes uint8 RGB frames `(num_frames, height, width, 3)`; the file appears when complete.

    Raises:
        OSError: the folder cannot be written, or the disk is full.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with av.open(str(temporary), "w", format=codec.container, options=_MUXER) as container:
            stream = container.add_stream(codec.encoder, FRAMES_PER_SECOND, options=codec.options)
            assert isinstance(stream, av.VideoStream)  # as its encoder's name says
            stream.height, stream.width = frames.shape[1:3]
            stream.pix_fmt = "yuv420p"
            stream.thread_count = 1
            for image in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            container.mux(stream.encode())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
