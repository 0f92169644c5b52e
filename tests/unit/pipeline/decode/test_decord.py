"""decord: right where it is accepted, refused where it would be wrong, never in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.clips.views import frame_indices
from pipeline.decode import DecodedVideo, DecodePool, DecodeRequest, decode_version, decode_video
from pipeline.errors import ClipStatus, ConfigError, DecodeError
from tests.videos import (
    cut_start_mp4,
    read_markers,
    remux,
    rotate_mp4,
    truncate,
    write_tracks,
    write_video,
)

pytest.importorskip("decord", reason="DECORD IS NOT INSTALLED: its wheels are for x86-64 only")

_VP9 = {"cpu-used": "8", "deadline": "realtime"}


@pytest.fixture(scope="module")
def pool() -> Iterator[DecodePool]:
    with DecodePool(1) as pool:
        yield pool


def _decode(pool: DecodePool, path: Path, **fields: Any) -> DecodedVideo | DecodeError:
    defaults = {"num_frames": 8, "size": 64, "short_side": 64, "decoder": "decord"}
    return next(pool.imap([DecodeRequest(path=str(path), **defaults | fields)]))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("h264.mp4", {}),
        ("long_gop.mkv", {"options": {"g": "250"}}),
        ("vp9.webm", {"codec": "libvpx-vp9", "options": _VP9}),
        ("mpeg4.avi", {"codec": "mpeg4"}),
        ("vfr.mp4", {"times": [n * n // 4 + n for n in range(40)]}),
    ],
)
@pytest.mark.parametrize("sampling", ["uniform", "stride:3"])
def test_accepted_files_give_pyavs_frames(
    pool: DecodePool, tmp_path: Path, name: str, kind: dict[str, Any], sampling: str
) -> None:
    path = write_video(tmp_path / name, 40, **kind)
    video = _decode(pool, path, sampling=sampling)
    assert isinstance(video, DecodedVideo)
    assert read_markers(video.clips[0]) == frame_indices(40, 8, sampling).tolist()
    expected = _decode(pool, path, sampling=sampling, decoder="pyav")
    assert isinstance(expected, DecodedVideo)
    assert np.abs(video.clips.astype(int) - expected.clips).max() <= 2
    assert video.num_frames_total == expected.num_frames_total
    assert (video.decoder, video.decoder_version) == ("decord", decode_version("decord"))


def test_the_last_frames_are_found_too(pool: DecodePool, tmp_path: Path) -> None:
    """Near the end decord spins for its last frames, for longer than a low limit allows."""
    path = write_video(tmp_path / "a.mp4", 40, 128, 128)
    for _ in range(5):
        video = _decode(pool, path, num_frames=40, sampling="stride:1")
        assert isinstance(video, DecodedVideo)
        assert read_markers(video.clips[0]) == list(range(40))


def test_rotation_is_applied_once(pool: DecodePool, tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 20, 64, 96)
    rotate_mp4(path, 90)
    video, expected = (_decode(pool, path, decoder=name) for name in ("decord", "pyav"))
    assert isinstance(video, DecodedVideo)
    assert isinstance(expected, DecodedVideo)
    assert np.abs(video.clips.astype(int) - expected.clips).max() <= 2


def _bframes_avi(folder: Path) -> Path:
    return write_video(folder / "a.avi", 30, codec="mpeg4", options={"bf": "2"})


def _edit_list(folder: Path) -> Path:
    path = write_video(folder / "a.mp4", 30)
    cut_start_mp4(path, 5)
    return path


def _ten_bits(folder: Path) -> Path:
    return write_video(folder / "a.mkv", 30, codec="ffv1", pixel_format="yuv420p10le")


def _odd_height(folder: Path) -> Path:
    return write_video(folder / "a.webm", 30, 77, 133, "libvpx-vp9", options=_VP9)


def _mpeg_stream(folder: Path) -> Path:
    return write_video(folder / "a.mpg", 30, codec="mpeg2video", rate=25)


def _two_tracks(folder: Path) -> Path:
    """The larger one is not the one to be shown."""
    return write_tracks(folder / "a.mp4", ("libx264", 64, 0), ("libx264", 128, 100))


def _turned_in_matroska(folder: Path) -> Path:
    """Of which decord's FFmpeg knows nothing."""
    turned = write_video(folder / "a.mp4", 30)
    rotate_mp4(turned, 180)
    return remux(turned, folder / "a.mkv")


def _no_times(folder: Path) -> Path:
    return write_video(folder / "a.h264", 30, container_format="h264")


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (_bframes_avi, "an AVI file with B-frames"),
        (_edit_list, "a video cut by an edit list"),
        (_ten_bits, "more than 8 bits per channel"),
        (_odd_height, "an odd number of lines"),
        (_two_tracks, "a file with 2 video tracks"),
        (_turned_in_matroska, "to be shown turned, in matroska"),
        (_mpeg_stream, "the container mpeg"),
        (_no_times, "the container h264"),
    ],
)
def test_what_decord_gets_wrong_is_refused(
    pool: DecodePool, tmp_path: Path, make: Callable[[Path], Path], reason: str
) -> None:
    """With the remedy; PyAV decodes every one of these right."""
    path = make(tmp_path)
    error = _decode(pool, path)
    assert isinstance(error, DecodeError)
    assert error.status is ClipStatus.REFUSED
    assert reason in str(error)
    assert str(error).endswith("use --decoder pyav")
    assert isinstance(_decode(pool, path, decoder="pyav"), DecodedVideo)


@pytest.mark.parametrize(
    ("name", "codec", "options"), [("a.avi", "mpeg4", {}), ("a.webm", "libvpx-vp9", _VP9)]
)
def test_a_cut_video_is_flagged(
    pool: DecodePool, tmp_path: Path, name: str, codec: str, options: dict[str, str]
) -> None:
    """decord says nothing: the packets do, before they are decoded."""
    path = write_video(tmp_path / name, 30, 128, 128, codec, options=options)
    truncate(path, 0.7)
    video, expected = (_decode(pool, path, decoder=name) for name in ("decord", "pyav"))
    assert isinstance(video, DecodedVideo)
    assert isinstance(expected, DecodedVideo)
    assert video.damaged
    assert expected.damaged
    assert video.num_frames_total == expected.num_frames_total < 30


def test_messages_hold_neither_path_nor_clock(pool: DecodePool, tmp_path: Path) -> None:
    """decord's own start with both, and would make no two stores alike."""
    path = write_video(tmp_path / "a [b] c.mp4", 30, 16, 16)
    error = _decode(pool, path)
    assert isinstance(error, DecodeError)
    assert error.status is ClipStatus.DECODE_ERROR
    assert str(error).startswith("decord: Check failed")
    assert str(tmp_path) not in str(error)


def test_decord_never_runs_in_the_calling_process(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 20)
    request = DecodeRequest(path=str(path), num_frames=4, size=64, short_side=64, decoder="decord")
    with pytest.raises(ConfigError, match="DecodePool"):
        decode_video(request)
    with DecodePool(0) as pool:
        assert isinstance(next(pool.imap([request])), DecodedVideo)
        assert len(pool.pids()) == 1
