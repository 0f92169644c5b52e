"""Hostile files: each has one status, quickly, and its neighbours never notice."""

from __future__ import annotations

import os
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.clips.views import frame_indices
from pipeline.decode import DecodedVideo, DecodePool, DecodeRequest, decode_video
from pipeline.errors import ClipStatus, DecodeError
from tests.videos import flip_bits, marker_frame, read_markers, truncate, write_video

_RANDOM = np.random.default_rng(0).integers(0, 256, 20_000, dtype=np.uint8).tobytes()


def _request(path: Path | str, **fields: Any) -> DecodeRequest:
    return DecodeRequest(path=str(path), **{"num_frames": 8, "size": 64, "short_side": 64} | fields)


def _with_bytes(data: bytes) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / "video.mp4").write_bytes(data)
        return folder / "video.mp4"

    return make


def _text(folder: Path) -> Path:
    return _with_bytes(b"This is not a video, whatever it is called.\n" * 50)(folder)


def _ffconcat(folder: Path) -> Path:
    """A script that makes FFmpeg's command line play another file."""
    other = write_video(folder / "other.mp4", 24)
    return _with_bytes(f"ffconcat version 1.0\nfile {other.name}\n".encode())(folder)


def _playlist(folder: Path) -> Path:
    other = write_video(folder / "other.ts", 24, container_format="mpegts")
    lines = ("#EXTM3U", "#EXT-X-TARGETDURATION:1", "#EXTINF:1,", other.name, "#EXT-X-ENDLIST", "")
    return _with_bytes("\n".join(lines).encode())(folder)


def _png(folder: Path) -> Path:
    picture = write_video(
        folder / "picture.png", 1, codec="png", pixel_format="rgb24", container_format="image2"
    )
    return picture.rename(folder / "video.mp4")


def _audio_only(folder: Path) -> Path:
    import av

    with av.open(str(folder / "video.mp4"), "w") as container:
        audio = container.add_stream("aac", rate=8000)
        audio.layout = "mono"
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), "fltp", "mono")
        silence.sample_rate = 8000
        container.mux(audio.encode(silence))
        container.mux(audio.encode())
    return folder / "video.mp4"


def _moov_at_end_truncated(folder: Path) -> Path:
    path = write_video(folder / "video.mp4", 24)
    truncate(path, 0.5)
    return path


def _only_ftyp(folder: Path) -> Path:
    path = write_video(folder / "video.mp4", 24)
    path.write_bytes(path.read_bytes()[:48])
    return path


def _one_frame(folder: Path) -> Path:
    return write_video(folder / "video.mp4", 1)


def _huge(folder: Path) -> Path:
    """A small file of very large frames."""
    return write_video(
        folder / "video.mp4", 2, 8192, 8192, options={"preset": "ultrafast"},
        frame=lambda number, height, width: np.zeros((height, width, 3), np.uint8),
    )  # fmt: skip


def _long_and_thin(folder: Path) -> Path:
    """Small as it is; its short side resized to 64 makes a frame of 64x262144."""
    return write_video(folder / "video.mkv", 2, 2, 8192, codec="ffv1")


def _missing(folder: Path) -> Path:
    return folder / "missing.mp4"


def _dangling_link(folder: Path) -> Path:
    (folder / "video.mp4").symlink_to(folder / "nowhere.mp4")
    return folder / "video.mp4"


def _inside_a_file(folder: Path) -> Path:
    return write_video(folder / "video.mp4", 2) / "inside.mp4"


def _link_loop(folder: Path) -> Path:
    (folder / "video.mp4").symlink_to(folder / "video.mp4")
    return folder / "video.mp4"


def _named_pipe(folder: Path) -> Path:
    os.mkfifo(folder / "video.mp4")
    return folder / "video.mp4"


def _socket(folder: Path) -> Path:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder / "s"))
    return folder / "s"


_HOSTILE: dict[str, tuple[Callable[[Path], Path], ClipStatus, str]] = {
    "missing": (_missing, ClipStatus.MISSING_FILE, "no such file"),
    "dangling link": (_dangling_link, ClipStatus.MISSING_FILE, "no such file"),
    "inside a file": (_inside_a_file, ClipStatus.MISSING_FILE, "no such file"),
    "directory": (lambda folder: folder, ClipStatus.UNREADABLE, "a directory"),
    "device": (lambda _: Path("/dev/zero"), ClipStatus.UNREADABLE, "a device"),
    "link loop": (_link_loop, ClipStatus.UNREADABLE, "cannot be opened"),
    "named pipe": (_named_pipe, ClipStatus.UNREADABLE, "a named pipe"),
    "socket": (_socket, ClipStatus.UNREADABLE, "cannot be opened"),
    "NUL in name": (lambda _: Path("a\0b"), ClipStatus.UNREADABLE, "not a file name"),
    "long name": (lambda _: Path("x" * 5000), ClipStatus.UNREADABLE, "cannot be opened"),
    "zero bytes": (_with_bytes(b""), ClipStatus.DECODE_ERROR, "0 bytes"),
    "one byte": (_with_bytes(b"a"), ClipStatus.DECODE_ERROR, "not a video"),
    "text": (_text, ClipStatus.DECODE_ERROR, "not a video"),
    "random": (_with_bytes(_RANDOM), ClipStatus.DECODE_ERROR, "not a video"),
    "ffconcat": (_ffconcat, ClipStatus.DECODE_ERROR, "not a video"),
    "playlist": (_playlist, ClipStatus.DECODE_ERROR, "not a video"),
    "picture": (_png, ClipStatus.DECODE_ERROR, "not a video"),
    "audio only": (_audio_only, ClipStatus.DECODE_ERROR, "no video stream"),
    "no index": (_moov_at_end_truncated, ClipStatus.DECODE_ERROR, "not a video"),
    "header only": (_only_ftyp, ClipStatus.DECODE_ERROR, "not a video"),
    "one frame": (_one_frame, ClipStatus.TOO_SHORT, "1 frame"),
    "8192x8192": (_huge, ClipStatus.TOO_LARGE, "8192x8192"),
    "long and thin": (_long_and_thin, ClipStatus.TOO_LARGE, "resized frame"),
}


@pytest.mark.parametrize("name", _HOSTILE)
def test_each_hostile_file_has_its_status(tmp_path: Path, name: str) -> None:
    """Without waiting, without the path in the message (it is committed to the store)."""
    make, status, message = _HOSTILE[name]
    path = make(tmp_path)
    started = time.monotonic()
    with pytest.raises(DecodeError, match=message) as caught:
        decode_video(_request(path))
    assert caught.value.status is status
    assert time.monotonic() - started < 30  # far below the request's limit, on a busy machine too
    assert str(tmp_path) not in str(caught.value)
    with pytest.raises(DecodeError) as again:
        decode_video(_request(path))
    assert str(again.value) == str(caught.value)


def test_no_hostile_file_disturbs_its_neighbours(tmp_path: Path) -> None:
    """All of them through one decoder process, a good video before and after each."""
    good = write_video(tmp_path / "good.mp4", 24)
    requests = [_request(good)]
    for number, (make, _, _) in enumerate(_HOSTILE.values()):
        folder = tmp_path / str(number)
        folder.mkdir()
        requests += [_request(make(folder)), _request(good)]
    with DecodePool(1) as pool:
        results = list(pool.imap(requests))
    for result, (_, status, _) in zip(results[1::2], _HOSTILE.values(), strict=True):
        assert isinstance(result, DecodeError)
        assert result.status is status
    for result in results[::2]:
        assert isinstance(result, DecodedVideo)
        assert read_markers(result.clips[0]) == frame_indices(24, 8).tolist()


def test_names_are_never_protocols(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_video(tmp_path / "a.mp4", 24)
    monkeypatch.chdir(tmp_path)
    for name in ("file:a.mp4", "concat:a.mp4|a.mp4", "http://localhost:9/a.mp4", "pipe:0"):
        with pytest.raises(DecodeError) as caught:
            decode_video(_request(name))
        assert caught.value.status is ClipStatus.MISSING_FILE


@pytest.mark.parametrize("name", ["ä ö %d 100%.mp4", "no_extension", "wrong.avi", "-i.mp4", "a:b"])
def test_odd_names_are_names(tmp_path: Path, name: str) -> None:
    path = write_video(tmp_path / "a.mp4", 24).rename(tmp_path / name)
    assert decode_video(_request(path)).num_frames_total == 24


def test_a_file_that_may_not_be_read_is_unreadable() -> None:
    with _as_nobody() as folder:
        path = folder / "secret.mp4"
        path.write_bytes(b"whatever")
        path.chmod(0)
        if os.access(path, os.R_OK, effective_ids=True):
            pytest.skip("NO FILE CAN BE DENIED to this user: run the tests as another one")
        with pytest.raises(DecodeError, match="Permission denied") as caught:
            decode_video(_request(path))
        assert caught.value.status is ClipStatus.UNREADABLE


@contextmanager
def _as_nobody() -> Iterator[Path]:
    """A folder, and no superuser's rights to it: root may read everything."""
    root = os.geteuid() == 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o777)
        if root:
            os.seteuid(65534)
        try:
            yield folder
        finally:
            if root:
                os.seteuid(0)


@pytest.mark.parametrize(("height", "width"), [(77, 133), (31, 18), (16, 16), (34, 500)])
def test_odd_sizes_decode_right(tmp_path: Path, height: int, width: int) -> None:
    path = write_video(tmp_path / "a.mkv", 20, height, width, codec="ffv1")
    video = decode_video(_request(path, size=16, short_side=16))
    assert video.clips.shape == (1, 8, 16, 16, 3)
    if height == width:
        assert read_markers(video.clips[0]) == frame_indices(20, 8).tolist()


def test_a_key_frame_missing_at_the_start_loses_only_what_needs_it(tmp_path: Path) -> None:
    """Cut from a broadcast: decoding starts at the next key frame, and never earlier frames."""
    path = write_video(
        tmp_path / "a.ts", 40, container_format="mpegts",
        options={"g": "12", "bf": "0", "x264-params": "scenecut=0:open-gop=0"},
    )  # fmt: skip
    whole = path.read_bytes()
    path.write_bytes(whole[:376] + whole[188 * 8 :])
    video = decode_video(_request(path))
    assert video.num_frames_total < 40
    first = 40 - video.num_frames_total
    expected = first + frame_indices(video.num_frames_total, 8)
    assert read_markers(video.clips[0])[1:] == expected.tolist()[1:]


@pytest.mark.parametrize("codec", ["libx264", "mpeg4", "libvpx-vp9"])
def test_damage_never_crashes_the_decoder_process(tmp_path: Path, codec: str) -> None:
    """Bits flipped or the end cut off, in header and body: one process survives them all."""
    suffix = {"libx264": ".mp4", "mpeg4": ".avi", "libvpx-vp9": ".webm"}[codec]
    options = {"cpu-used": "8", "deadline": "realtime"} if codec == "libvpx-vp9" else {}
    requests = []
    for seed in range(30):
        path = write_video(
            tmp_path / f"{seed}{suffix}", 16, 64, 64, codec, options=options,
            frame=lambda number, height, width: marker_frame(number * 7, height, width),
        )  # fmt: skip
        if seed % 3 == 2:
            truncate(path, 0.1 + seed / 40)
        else:
            flip_bits(path, seed, share=0.005, start=0.0 if seed % 3 else 0.3)
        requests.append(_request(path))
    with DecodePool(1) as pool:
        results = list(pool.imap(requests))
    allowed = {ClipStatus.DECODE_ERROR, ClipStatus.TOO_SHORT, ClipStatus.TOO_LARGE}
    assert {r.status for r in results if isinstance(r, DecodeError)} <= allowed
    assert any(isinstance(r, DecodedVideo) and r.damaged for r in results)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_no_file_stays_open(tmp_path: Path) -> None:
    paths = []
    for number, (make, _, _) in enumerate(_HOSTILE.values()):
        (tmp_path / str(number)).mkdir()
        paths.append(make(tmp_path / str(number)))
    paths.append(write_video(tmp_path / "good.mp4", 24))
    before = len(list(Path("/proc/self/fd").iterdir()))
    for path in paths:
        try:
            decode_video(_request(path))
        except DecodeError:
            continue
    assert len(list(Path("/proc/self/fd").iterdir())) == before
