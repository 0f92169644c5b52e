"""From a video file to the clips of a backbone: one function, three backends, a pool of processes.

`DecodeRequest` asks for the views of one video, `decode_video` answers here, `DecodePool` in
processes that may crash or hang without harm. A video that cannot be decoded is a `DecodeError`
that carries the `ClipStatus` of its rows. `check_decoder` is for the start of a run.
"""

from pipeline.decode.backends import decode_version, decode_video
from pipeline.decode.check import check_decoder
from pipeline.decode.pool import DecodePool
from pipeline.decode.request import DecodedVideo, DecodeRequest

__all__ = [
    "DecodePool",
    "DecodeRequest",
    "DecodedVideo",
    "check_decoder",
    "decode_version",
    "decode_video",
]
