"""Live sources: an address on the net, or a camera of this machine.

They are opened where somebody asks for one by name, and nowhere else: a path of a file is never
taken for one (`pipeline.decode.container`). FFmpeg may then use the protocols that the address
needs, and no playlist may send it elsewhere.
"""

from __future__ import annotations

import os
import re
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import av.error

from pipeline.decode.container import FORMATS, metadata_options, video_stream
from pipeline.decode.request import DecodeRequest
from pipeline.errors import ClipStatus, ConfigError, DecodeError, reason_of

_TCP = "tcp,tls"
_PROTOCOLS = {
    "rtsp": f"rtsp,rtsps,rtp,udp,{_TCP}",
    "rtsps": f"rtsp,rtsps,rtp,udp,{_TCP}",
    "rtmp": f"rtmp,rtmps,{_TCP}",
    "rtmps": f"rtmp,rtmps,{_TCP}",
    "srt": "srt,udp",
    "udp": "udp",
    "tcp": "tcp",
    "http": f"http,https,{_TCP}",
    "https": f"http,https,{_TCP}",
}
"""Scheme of an address -> what FFmpeg may use for it."""
_FORMATS = f"{FORMATS},rtsp,mjpeg,mpjpeg,mpegvideo"
_CAMERA = re.compile(r"/dev/video\d+")


def check_live(address: str) -> None:
    """Refuse what is no address of a live source, before anything is opened.

    Raises:
        ConfigError: says what is one.
    """
    scheme = _scheme(address)
    if _CAMERA.fullmatch(address):
        if not sys.platform.startswith("linux"):
            raise ConfigError(f"{address}: cameras are read on Linux (Video4Linux) only")
        return
    if scheme in _PROTOCOLS and len(address) > len(f"{scheme}://"):
        return
    raise ConfigError(
        f"{address!r} is no live source: give /dev/videoN, or an address that begins with "
        f"{', '.join(f'{name}://' for name in _PROTOCOLS)}; a file is given as VIDEO"
    )


def _scheme(address: str) -> str:
    return address.partition("://")[0].lower() if "://" in address else ""


@contextmanager
def open_live(request: DecodeRequest) -> Iterator[tuple[Any, Any]]:
    """Open `request.path`, an address; yields PyAV's (container, best video stream).

    Raises:
        ConfigError: it is no address of a live source.
        DecodeError: `UNREADABLE` where nothing answers within `timeout_s`, or the stream breaks
            off; `DECODE_ERROR` where what comes is no video.
    """
    address = request.path
    check_live(address)
    camera = _scheme(address) == ""
    if camera:
        _check_camera(address)
    options = {"rtsp_flags": "prefer_tcp"} if _scheme(address).startswith("rtsp") else {}
    if not camera:
        options |= {
            "protocol_whitelist": _PROTOCOLS[_scheme(address)],
            "format_whitelist": _FORMATS,
        }
    try:
        with av.open(
            address,
            format="v4l2" if camera else None,
            options=options,
            timeout=request.timeout_s,
            **metadata_options(av.__version__),
        ) as container:
            yield container, video_stream(container, request)
    except (av.error.ExitError, av.error.TimeoutError) as error:
        raise _silent(request) from error
    except DecodeError as error:
        # Whoever reads moves the deadline as long as frames come.
        if error.status is ClipStatus.DECODE_TIMEOUT:
            raise _silent(request) from error
        raise
    except av.error.ProtocolNotFoundError as error:
        raise DecodeError(
            ClipStatus.UNREADABLE, f"this build of PyAV cannot read {_scheme(address)}://"
        ) from error
    except av.error.InvalidDataError as error:
        raise DecodeError(
            ClipStatus.DECODE_ERROR, f"what it sends is no video: {reason_of(error)}"
        ) from error
    except av.error.FFmpegError as error:
        raise DecodeError(
            ClipStatus.UNREADABLE, f"it cannot be read: {reason_of(error)}"
        ) from error


def _silent(request: DecodeRequest) -> DecodeError:
    return DecodeError(
        ClipStatus.UNREADABLE,
        f"nothing came from it for {request.timeout_s:g} s: is the address right, does it send, "
        "and may this machine reach it?",
    )


def _check_camera(address: str) -> None:
    try:
        mode = Path(address).stat().st_mode
    except OSError as error:
        raise DecodeError(
            ClipStatus.UNREADABLE,
            f"there is no such camera ({os.strerror(error.errno or 0)}): `ls /dev/video*` shows "
            "those of this machine",
        ) from error
    if not stat.S_ISCHR(mode):
        raise DecodeError(ClipStatus.UNREADABLE, "it is not a camera")
