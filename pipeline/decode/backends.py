"""What all decoders have in common to their users: one function, a version, and what to install."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import cast

from pipeline.decode.request import DecodedVideo, DecodeRequest
from pipeline.errors import ClipStatus, ConfigError, DecodeError, LiteError, reason_of

ADVICE = {
    "pyav": "install it with: pip install 'av>=17.1,<20'",
    "decord": "install it with: pip install decord (x86-64 Linux; decord2 elsewhere), or use "
    "--decoder pyav",
    "torchcodec": "install it with: pip install 'lite-pipeline[torchcodec]', and the FFmpeg "
    "libraries of the system with: apt-get install ffmpeg (or conda install ffmpeg); or use "
    "--decoder pyav",
}
"""What to do where a backend cannot be used."""

# Distributions that install the module; the first that is installed names the version.
_DISTRIBUTIONS = {
    "decord": ("decord", "decord2", "eva-decord"),
    "torchcodec": ("torchcodec",),
}

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
    """`decode_video` without its check: for the decoder process.

    Raises:
        DecodeError: with the status to record.
        ConfigError: the backend cannot be loaded.
    """
    decode = _load(request.decoder)
    try:
        return decode(request)
    except LiteError:
        raise
    except Exception as error:
        raise crash_of(request, error) from error


def crash_of(request: DecodeRequest, error: Exception) -> DecodeError:
    """What an exception that nobody foresaw means for a video.

    Under fuzzing, libraries raised MemoryError, IndexError, AttributeError ... on one file or
    another: whatever it is, it concerns this video alone.
    """
    logger.debug("decoding %s failed", request.path, exc_info=True)
    return DecodeError(
        ClipStatus.DECODE_ERROR,
        f"{request.decoder} failed with {type(error).__name__}: {reason_of(error)}",
    )


def _load(decoder: str) -> Callable[[DecodeRequest], DecodedVideo]:
    try:
        return cast(
            Callable[[DecodeRequest], DecodedVideo],
            importlib.import_module(f"pipeline.decode.{decoder}").decode,
        )
    except (ImportError, OSError, RuntimeError) as error:  # a module, or a library beneath it
        raise ConfigError(
            f"decoder {decoder!r} cannot be loaded ({type(error).__name__}: "
            f"{str(error).strip().splitlines()[0]}); {ADVICE[decoder]}"
        ) from error


@cache
def decode_version(decoder: str) -> str:
    """Name and version of the library, and of what decides the pixels beneath it.

    Raises:
        ConfigError: the library is not installed.
    """
    if decoder == "pyav":
        import av

        libraries = av.library_versions
        parts = (
            f"{name} {'.'.join(map(str, libraries[name]))}" for name in ("libavcodec", "libswscale")
        )
        return ", ".join((f"av {av.__version__}", *parts))
    for distribution in _DISTRIBUTIONS[decoder]:
        try:
            return f"{distribution} {version(distribution)}"
        except PackageNotFoundError:
            continue
    raise ConfigError(f"decoder {decoder!r} is not installed; {ADVICE[decoder]}")
