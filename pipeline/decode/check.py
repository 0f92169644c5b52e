"""Whether a decoder works here at all: found out before a run, not by its first thousand rows."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

import numpy as np

from pipeline.config import DECODERS
from pipeline.decode.backends import ADVICE
from pipeline.decode.pool import DecodePool
from pipeline.decode.request import DecodeRequest
from pipeline.errors import ConfigError, DecodeError

_SIDE = 64
_FRAMES = 4


@cache
def check_decoder(decoder: str) -> None:
    """Decode a small generated clip with `decoder`, where and how a run would.

    That the module can be imported proves little: torchcodec fails only when it opens a file. A
    success is remembered for as long as this process lives.

    Raises:
        ConfigError: it cannot be used; the message says what to install, or what else to use.
        LiteError: its process cannot be started.
    """
    if decoder not in DECODERS:
        raise ConfigError(f"decoder must be one of {', '.join(DECODERS)}, got {decoder!r}")
    with tempfile.TemporaryDirectory(prefix="lite-decoder-") as folder:
        path = Path(folder) / "probe.mp4"
        _write_clip(path)
        request = DecodeRequest(
            path=str(path), num_frames=_FRAMES, size=_SIDE, short_side=_SIDE, decoder=decoder
        )
        with DecodePool(0) as pool:
            (result,) = pool.imap([request])
    if isinstance(result, DecodeError):
        raise ConfigError(
            f"decoder {decoder!r} does not work here: {result}; {ADVICE[decoder]}"
        ) from result
    if result.num_frames_total != _FRAMES or not result.clips.any():
        raise ConfigError(
            f"decoder {decoder!r} does not work here: it makes {result.num_frames_total} frames of "
            f"a clip of {_FRAMES}; {ADVICE[decoder]}"
        )


def _write_clip(path: Path) -> None:
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = _SIDE, _SIDE, "yuv420p"
        for number in range(_FRAMES):
            picture = np.full((_SIDE, _SIDE, 3), 50 * (number + 1), dtype=np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
