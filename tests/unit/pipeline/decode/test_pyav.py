"""The default decoder: every frame is the one it says it is."""

from __future__ import annotations

import ast
import inspect
import struct
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from pipeline import decode as decode_package
from pipeline.clips.views import frame_indices, list_views
from pipeline.decode import DecodeRequest, decode_version, decode_video
from pipeline.decode.container import later_end, metadata_options, open_video
from pipeline.decode.resize import ClipFiller
from pipeline.errors import ClipStatus, DecodeError
from tests.videos import (
    cut_start_mp4,
    flip_bits,
    marker_frame,
    read_markers,
    remux,
    truncate,
    write_tracks,
    write_video,
)

_KINDS: dict[str, dict[str, Any]] = {
    "h264.mp4": {"options": {"g": "12"}},
    "long_gop.mkv": {"options": {"g": "250"}},
    "vp9.webm": {"codec": "libvpx-vp9", "options": {"cpu-used": "8", "deadline": "realtime"}},
    "vp8.webm": {"codec": "libvpx", "options": {"cpu-used": "8", "deadline": "realtime"}},
    "mpeg4.avi": {"codec": "mpeg4"},
    "bframes.avi": {"codec": "mpeg4", "options": {"bf": "2"}},
    "vfr.mp4": {"times": [n * n // 4 + n for n in range(40)]},
    "vfr.webm": {
        "codec": "libvpx-vp9",
        "options": {"cpu-used": "8", "deadline": "realtime"},
        "times": [n * n // 4 + n for n in range(40)],
    },
    "mpeg2.mpg": {"codec": "mpeg2video", "rate": 25},
    "h264.ts": {"container_format": "mpegts"},
    "raw.h264": {"container_format": "h264"},
    "mjpeg.avi": {"codec": "mjpeg", "pixel_format": "yuvj420p"},
    "gray.mp4": {"pixel_format": "gray"},
    "yuv444.mp4": {"pixel_format": "yuv444p"},
}


def _request(path: Path, **fields: Any) -> DecodeRequest:
    return DecodeRequest(path=str(path), **{"num_frames": 8, "size": 64, "short_side": 64} | fields)


@pytest.mark.parametrize("name", _KINDS)
@pytest.mark.parametrize("sampling", ["uniform", "stride:3"])
def test_frames_are_the_ones_asked_for(tmp_path: Path, name: str, sampling: str) -> None:
    """In every container and codec, with headers that miscount, time stamps in any order."""
    path = write_video(tmp_path / name, 40, **_KINDS[name])
    video = decode_video(_request(path, sampling=sampling))
    assert video.num_frames_total == 40
    assert read_markers(video.clips[0]) == frame_indices(40, 8, sampling).tolist()
    assert (video.padded, video.damaged) == (False, False)
    assert (video.decoder, video.decoder_version) == ("pyav", decode_version("pyav"))


def test_views_come_in_their_order_from_one_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_video(tmp_path / "a.mp4", 30, width=96)
    opened = _count_openings(monkeypatch)
    views = list_views(2, 3)
    video = decode_video(_request(path, views=views))
    assert video.clips.shape == (6, 8, 64, 64, 3)
    assert video.clips.dtype == np.uint8
    assert opened == [str(path)]
    for view, clip in zip(views, video.clips, strict=True):
        alone = decode_video(_request(path, views=(view,)))
        np.testing.assert_array_equal(clip, alone.clips[0])
    assert not np.array_equal(video.clips[0], video.clips[2])


@pytest.mark.parametrize("claimed", [5, 33, 60_000, 2_000_000_000])
def test_the_frame_count_of_a_header_is_not_believed(tmp_path: Path, claimed: int) -> None:
    """Not below the true 30, not above, and not beyond what is allowed (`max_frames`)."""
    path = write_video(tmp_path / "a.avi", 30, codec="mpeg4")
    data = bytearray(path.read_bytes())
    for chunk, offset in ((b"avih", 8 + 16), (b"strh", 8 + 32)):
        place = data.index(chunk) + offset
        assert data[place : place + 4] == (30).to_bytes(4, "little")
        data[place : place + 4] = claimed.to_bytes(4, "little")
    path.write_bytes(data)
    with open_video(_request(path)) as (_, stream):
        assert stream.frames == claimed
    video = decode_video(_request(path))
    assert video.num_frames_total == 30
    assert read_markers(video.clips[0]) == frame_indices(30, 8).tolist()


def test_packets_that_show_nothing_cost_a_second_pass_and_no_frame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without its first key frame the first ten packets of this video cannot be decoded."""
    path = tmp_path / "a.mkv"
    whole = write_video(
        tmp_path / "whole.mkv", 40, options={"g": "10", "bf": "0", "sc_threshold": "0"}
    )
    remux(whole, path, skip=1)
    with av.open(str(path)) as container:
        assert sum(packet.size > 0 for packet in container.demux(video=0)) == 39
    opened = _count_openings(monkeypatch)
    video = decode_video(_request(path))
    assert video.num_frames_total == 30
    assert read_markers(video.clips[0]) == (10 + frame_indices(30, 8)).tolist()
    assert len(opened) == 2


def test_a_packet_without_a_picture_costs_no_second_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DivX left one of one byte in every video of HMDB51; its header counts it as a frame."""
    plain = write_video(tmp_path / "plain.avi", 30, codec="mpeg4", options={"bf": "2"})
    path = tmp_path / "a.avi"
    with av.open(str(plain)) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        packets = [packet for packet in source.demux(video=0) if packet.size]
        for number, packet in enumerate([packets[0], av.Packet(b"\x7f"), *packets[1:]]):
            packet.stream, packet.pts, packet.dts = stream, number, number
            packet.time_base = stream.time_base
            target.mux(packet)
    with open_video(_request(path)) as (container, stream):
        assert stream.frames == 31
        assert sum(packet.size > 0 for packet in container.demux(stream)) == 31
    opened = _count_openings(monkeypatch)
    video = decode_video(_request(path))
    assert video.num_frames_total == 30
    assert read_markers(video.clips[0]) == frame_indices(30, 8).tolist()
    assert len(opened) == 1


@pytest.mark.parametrize(("most_waiting", "longest"), [(0, 0), (3, 12), (100, 28)])
def test_frames_that_wait_to_be_converted_are_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most_waiting: int, longest: int
) -> None:
    """Of 30 frames every fourth is wanted; how many others are decoded while one waits."""
    path = write_video(tmp_path / "a.mp4", 30)
    num_decoded, waits = 0, []

    class Filler(ClipFiller):
        def add(self, index: int, frame: Any) -> None:
            waits.append(num_decoded - index)
            super().add(index, frame)

    def counted(end: int | None, frame: Any) -> int | None:
        nonlocal num_decoded
        num_decoded += 1
        return later_end(end, frame)

    monkeypatch.setattr("pipeline.decode.pyav.ClipFiller", Filler)
    monkeypatch.setattr("pipeline.decode.pyav.later_end", counted)
    monkeypatch.setattr("pipeline.decode.pyav._MOST_WAITING_PIXELS", most_waiting * 64 * 64)
    assert read_markers(decode_video(_request(path)).clips[0]) == frame_indices(30, 8).tolist()
    assert max(waits) == pytest.approx(longest, abs=1)


def test_a_video_too_large_to_be_held_is_read_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_video(tmp_path / "a.mp4", 30, 128, 128)
    expected = decode_video(_request(path)).clips
    monkeypatch.setattr("pipeline.decode.pyav._MOST_HELD_BYTES", 1000)
    opened = _count_openings(monkeypatch)
    np.testing.assert_array_equal(decode_video(_request(path)).clips, expected)
    assert len(opened) == 2


def _count_openings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    opened: list[str] = []

    def counted(request: DecodeRequest) -> Any:
        opened.append(request.path)
        return open_video(request)

    monkeypatch.setattr("pipeline.decode.pyav.open_video", counted)
    return opened


def test_frames_cut_by_an_edit_list_are_not_counted(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 30)
    cut_start_mp4(path, 5)
    video = decode_video(_request(path))
    assert video.num_frames_total == 25
    assert read_markers(video.clips[0]) == (5 + frame_indices(25, 8)).tolist()


def test_a_size_change_in_mid_stream_is_followed(tmp_path: Path) -> None:
    first = write_video(tmp_path / "1.h264", 10, 64, 64, container_format="h264")
    second = write_video(
        tmp_path / "2.h264", 10, 96, 128, container_format="h264",
        frame=lambda number, height, width: marker_frame(10 + number, height, width),
    )  # fmt: skip
    path = tmp_path / "both.h264"
    path.write_bytes(first.read_bytes() + second.read_bytes())
    video = decode_video(_request(path))
    assert video.num_frames_total == 20
    assert read_markers(video.clips[0]) == frame_indices(20, 8).tolist()
    with pytest.raises(DecodeError, match="128x96 pixels") as caught:
        decode_video(_request(path, max_pixels=100 * 100))
    assert caught.value.status is ClipStatus.TOO_LARGE


@pytest.mark.parametrize("default", [0, 1])
def test_of_two_video_tracks_the_one_marked_as_default_is_taken(
    tmp_path: Path, default: int
) -> None:
    tracks = ("mpeg4", 32, 0), ("mpeg4", 64, 100)
    path = write_tracks(tmp_path / "two.mkv", *tracks, default=default)
    video = decode_video(_request(path))
    assert read_markers(video.clips[0]) == (100 * default + frame_indices(20, 8)).tolist()


def test_short_videos_are_padded_and_shorter_ones_refused(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 3)
    video = decode_video(_request(path))
    assert video.padded
    assert read_markers(video.clips[0]) == frame_indices(3, 8).tolist()
    with pytest.raises(DecodeError, match=r"3 frame\(s\), fewer than the 4") as caught:
        decode_video(_request(path, min_frames=4))
    assert caught.value.status is ClipStatus.TOO_SHORT


def test_too_many_frames_are_refused(tmp_path: Path) -> None:
    for name in ("a.mp4", "a.mkv", "a.h264"):
        path = write_video(tmp_path / name, 30)
        with pytest.raises(DecodeError, match="more than the 29 frames") as caught:
            decode_video(_request(path, max_frames=29))
        assert caught.value.status is ClipStatus.TOO_LARGE
        assert decode_video(_request(path, max_frames=30)).num_frames_total == 30


def test_the_time_limit_is_kept_between_packets(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 30)
    with pytest.raises(DecodeError, match="not decoded within 1e-09 s") as caught:
        decode_video(_request(path, timeout_s=1e-9))
    assert caught.value.status is ClipStatus.DECODE_TIMEOUT


@pytest.mark.parametrize("name", ["long_gop.mkv", "mpeg4.avi"])
def test_flipped_bits_are_decoded_and_flagged(tmp_path: Path, name: str) -> None:
    """Frames that can be decoded are returned, and the row says that they may be wrong."""
    outcomes = []
    for seed in range(8):
        path = write_video(tmp_path / name, 30, 128, 128, **_KINDS[name])
        flip_bits(path, seed, share=0.004, end=0.8)
        try:
            outcomes.append("damaged" if decode_video(_request(path)).damaged else "unnoticed")
        except DecodeError as error:
            outcomes.append(error.status.value)
    assert set(outcomes) <= {"damaged", "decode_error"}
    assert outcomes.count("damaged") > 4


@pytest.mark.parametrize("name", ["long_gop.mkv", "vp9.webm", "mpeg4.avi", "faststart.mp4"])
def test_a_truncated_video_is_shorter_and_flagged(tmp_path: Path, name: str) -> None:
    kind = _KINDS.get(name, {})
    path = write_video(tmp_path / name, 40, 128, 128, **kind)
    if name == "faststart.mp4":
        path = _faststart(path)
    truncate(path, 0.6)
    video = decode_video(_request(path))
    assert 2 <= video.num_frames_total < 36
    assert video.damaged


@pytest.mark.parametrize("name", ["long_gop.mkv", "vp9.webm"])
@pytest.mark.parametrize("counts_from_the_first_frame", [False, True])
def test_a_late_start_is_no_damage_and_does_not_hide_any(
    tmp_path: Path, name: str, counts_from_the_first_frame: bool
) -> None:
    """Matroska's duration is the last moment, or the time from the first frame to it."""
    times = [24 * 100 + number for number in range(40)]
    path = write_video(tmp_path / name, 40, 128, 128, times=times, **_KINDS[name])
    if counts_from_the_first_frame:
        _set_matroska_duration(path, 40 / 24)
    with av.open(str(path)) as container:
        assert container.start_time == 100 * av.time_base
        promised = 40 / 24 + (0 if counts_from_the_first_frame else 100)
        assert container.duration == pytest.approx(promised * av.time_base, rel=0.01)
    video = decode_video(_request(path))
    assert video.num_frames_total == 40
    assert not video.damaged
    truncate(path, 0.6)
    video = decode_video(_request(path))
    assert 2 <= video.num_frames_total < 36
    assert video.damaged


def _set_matroska_duration(path: Path, seconds: float) -> None:
    """Overwrite the `Duration` element: id 44 89, length 8, a double in ms."""
    data = bytearray(path.read_bytes())
    place = data.index(b"\x44\x89\x88") + 3
    data[place : place + 8] = struct.pack(">d", seconds * 1000)
    path.write_bytes(data)


def test_an_audio_track_longer_than_the_video_is_no_damage(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=24)
        video.width = video.height = 64
        video.pix_fmt = "yuv420p"
        audio = container.add_stream("pcm_s16le", rate=8000)
        audio.layout = "mono"
        for number in range(24):
            picture = marker_frame(number, 64, 64)
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture)))
        container.mux(video.encode())
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 8000 * 3), np.int16), "s16", "mono")
        silence.sample_rate = 8000
        container.mux(audio.encode(silence))
        container.mux(audio.encode())
    assert not decode_video(_request(path)).damaged


@pytest.mark.parametrize(
    ("version", "takes_it"), [("17.1.0", True), ("18.1.0", True), ("19.0.2", False)]
)
def test_the_metadata_option_is_given_to_the_versions_that_have_it(
    version: str, takes_it: bool
) -> None:
    assert bool(metadata_options(version)) == takes_it


def test_metadata_that_is_not_utf8_does_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "a.avi"
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "TITLE"
        stream = container.add_stream("mpeg4", rate=24)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for number in range(20):
            picture = av.VideoFrame.from_ndarray(marker_frame(number, 64, 64))
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    path.write_bytes(path.read_bytes().replace(b"TITLE", b"\xff\xfe\xe9 \x80"))
    assert decode_video(_request(path)).num_frames_total == 20


def test_the_log_level_of_ffmpeg_is_never_set() -> None:
    """With it, a damaged file can deadlock: FFmpeg's log callback waits for the GIL."""
    for module in Path(inspect.getfile(decode_package)).parent.glob("*.py"):
        calls = [
            ast.unparse(node.func)
            for node in ast.walk(ast.parse(module.read_text()))
            if isinstance(node, ast.Call)
        ]
        assert not [call for call in calls if call.startswith("av.logging")], module


def _faststart(path: Path) -> Path:
    """Rewrite an mp4 with its index at the front."""
    return remux(path, path.with_name("fast.mp4"), options={"movflags": "faststart"})
