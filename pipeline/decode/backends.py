"""One function in front of every decoder."""

from __future__ import annotations

import logging

from pipeline.decode.request import DecodedVideo, DecodeRequest
from pipeline.errors import ClipStatus, ConfigError, DecodeError, LiteError

logger = logging.getLogger(__name__)


def decode_video(request: DecodeRequest) -> DecodedVideo:
    """Decode the clips of one video in this process.

    The error's message does not name the path: the row it is recorded in has it, and committed
    files must not depend on where the videos are mounted.

    Raises:
        DecodeError: with the status to record.
        ConfigError: the backend is not installed, or may not run in this process (decord).
    """
    if request.decoder == "decord":
        raise ConfigError(
            "decord can hang in native code and so runs in a decoder process only: use "
            "DecodePool(num_workers=1), or --decoder pyav"
        )
    return decode_here(request)


def decode_here(request: DecodeRequest) -> DecodedVideo:
    """`decode_video` without its check: for the decoder process."""
    try:
        if request.decoder == "decord":
            from pipeline.decode.decord import decode
        elif request.decoder == "torchcodec":
            from pipeline.decode.torchcodec import decode
        else:
            from pipeline.decode.pyav import decode
        return decode(request)
    except LiteError:
        raise
    except Exception as error:
        # Under fuzzing, libraries raised MemoryError, IndexError, AttributeError ... on one file
        # or another: whatever it is, it concerns this video alone.
        logger.debug("decoding %s failed", request.path, exc_info=True)
        reason = getattr(error, "strerror", None) or str(error).split("\n", 1)[0][:200]
        raise DecodeError(
            ClipStatus.DECODE_ERROR,
            f"{request.decoder} failed with {type(error).__name__}: {reason}",
        ) from error
