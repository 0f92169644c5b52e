"""Videos made at test time, whose every frame says in its pixels which one it is."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
from av.stream import Disposition

_BITS = 8


def marker_frame(number: int, height: int, width: int) -> npt.NDArray[np.uint8]:
    """Eight vertical bars, black or white, that spell `number` in binary; uint8 (H, W, 3)."""
    frame = np.zeros((height, width, 3), dtype=np.uint8)
    for bit in range(_BITS):
        left, right = bit * width // _BITS, (bit + 1) * width // _BITS
        frame[:, left:right] = 235 if number >> bit & 1 else 20
    return frame


def read_markers(frames: npt.NDArray[np.uint8]) -> list[int]:
    """The numbers that the frames (T, H, W, 3) of square, uncropped marker videos spell."""
    width = frames.shape[2]
    centres = [(2 * bit + 1) * width // (2 * _BITS) for bit in range(_BITS)]
    height = frames.shape[1]
    bits = frames[:, height // 4 : 3 * height // 4, centres].mean(axis=(1, 3)) > 128
    return [int(sum(1 << bit for bit in range(_BITS) if row[bit])) for row in bits]


def write_video(
    path: Path,
    num_frames: int = 24,
    height: int = 64,
    width: int = 64,
    codec: str = "libx264",
    *,
    options: dict[str, str] | None = None,
    times: Sequence[int] | None = None,
    rate: int = 24,
    pixel_format: str = "yuv420p",
    container_format: str | None = None,
    frame: Callable[[int, int, int], npt.NDArray[np.uint8]] = marker_frame,
) -> Path:
    """Encode a video; `times` are the frames' presentation times in 1/`rate` s (default 0, 1, ...).

    The mpeg4 encoder makes B-frames with `options={"bf": "2"}`; libx264 does by default.
    """
    with av.open(str(path), "w", format=container_format) as container:
        stream = container.add_stream(codec, rate=rate, options=options or {})
        stream.width, stream.height, stream.pix_fmt = width, height, pixel_format
        for number in range(num_frames):
            picture = av.VideoFrame.from_ndarray(frame(number, height, width), format="rgb24")
            if times is not None:
                picture.pts = times[number]
                picture.time_base = Fraction(1, rate)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return path


def write_tracks(
    path: Path, *tracks: tuple[str, int, int], default: int = 0, num_frames: int = 20
) -> Path:
    """Encode a file with several video tracks, (codec, side, shift) each.

    Frame n of a track spells n + shift.
    """
    with av.open(str(path), "w") as container:
        streams = []
        for number, (codec, side, _) in enumerate(tracks):
            stream = container.add_stream(codec, rate=24)
            stream.width = stream.height = side
            stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
            if number == default:
                stream.disposition = Disposition.default
            streams.append(stream)
        for number in range(num_frames):
            for stream, (_, side, shift) in zip(streams, tracks, strict=True):
                picture = marker_frame(number + shift, side, side)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
        for stream in streams:
            container.mux(stream.encode())
    return path


def remux(
    source: Path, target: Path, *, skip: int = 0, options: dict[str, str] | None = None
) -> Path:
    """Copy the packets of a video into another container, all but the first `skip`."""
    with av.open(str(source)) as read, av.open(str(target), "w", options=options or {}) as written:
        stream = written.add_stream_from_template(read.streams.video[0])
        for number, packet in enumerate(read.demux(video=0)):
            if packet.dts is not None and number >= skip:
                packet.stream = stream
                written.mux(packet)
    return target


def rotate_mp4(path: Path, clockwise: int) -> None:
    """Write a display rotation of 90, 180 or 270 degrees into the track header of an mp4 file."""
    cosine, sine = {90: (0, 1), 180: (-1, 0), 270: (0, -1)}[clockwise]
    orient_mp4(path, (cosine, sine, -sine, cosine))


def orient_mp4(path: Path, abcd: tuple[float, float, float, float]) -> None:
    """Write a display matrix into the track header of an mp4 file.

    A point (x, y) of the stored frame is shown at (a x + c y, b x + d y), up to an offset.
    """
    a, b, c, d = (round(value * (1 << 16)) for value in abcd)
    matrix = (a, b, 0, c, d, 0, 0, 0, 1 << 30)
    data = bytearray(path.read_bytes())
    start = data.index(b"tkhd") + 4 + 40
    data[start : start + 36] = struct.pack(">9i", *matrix)
    path.write_bytes(data)


def cut_start_mp4(path: Path, num_frames: int, rate: int = 24) -> None:
    """Let the edit list of an mp4 file start `num_frames` frames later: they are not shown."""
    data = bytearray(path.read_bytes())
    timescale = struct.unpack_from(">I", data, data.index(b"mdhd") + 4 + 12)[0]
    entry = data.index(b"elst") + 4 + 8
    duration, media_time = struct.unpack_from(">Ii", data, entry)
    movie_timescale = struct.unpack_from(">I", data, data.index(b"mvhd") + 4 + 12)[0]
    struct.pack_into(
        ">Ii",
        data,
        entry,
        duration - num_frames * movie_timescale // rate,
        media_time + num_frames * timescale // rate,
    )
    path.write_bytes(data)


def flip_bits(
    path: Path, seed: int, share: float = 0.002, start: float = 0.3, end: float = 1.0
) -> None:
    """Flip one bit in `share` of the bytes, between the shares `start` and `end` of the file."""
    data = np.frombuffer(path.read_bytes(), dtype=np.uint8).copy()
    rng = np.random.default_rng(seed)
    places = rng.integers(
        int(len(data) * start), int(len(data) * end), size=max(1, int(share * len(data)))
    )
    data[places] ^= (1 << rng.integers(0, 8, size=len(places))).astype(np.uint8)
    path.write_bytes(data.tobytes())


def truncate(path: Path, share: float) -> None:
    """Keep the first `share` of the file."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


@contextmanager
def sender(data: bytes, *, then_close: bool = True):
    """An address on this machine that sends `data` to whoever comes first."""
    done = threading.Event()

    def serve(server):
        connection, _ = server.accept()
        with connection:
            connection.sendall(data)
            if not then_close:
                done.wait(60)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve, args=(server,), daemon=True)
        thread.start()
        yield f"tcp://127.0.0.1:{server.getsockname()[1]}"
        done.set()
        thread.join(10)
