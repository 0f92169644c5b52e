"""From a video file to the clips of a backbone: one function, three backends, a pool of processes.

`DecodeRequest` asks for the views of one video, `decode_video` answers here, `DecodePool` in
processes that may crash or hang without harm. A video that cannot be decoded is a `DecodeError`
that carries the `ClipStatus` of its rows.
"""

from pipeline.decode.backends import decode_video
from pipeline.decode.request import DecodedVideo, DecodeRequest
from pipeline.decode.version import decode_version

__all__ = ["DecodeRequest", "DecodedVideo", "decode_version", "decode_video"]
