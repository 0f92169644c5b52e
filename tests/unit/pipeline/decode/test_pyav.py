"""The default decoder: every frame is the one it says it is."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.stream import Disposition

from pipeline import decode as decode_package
from pipeline.clips.views import frame_indices, list_views
from pipeline.decode import DecodeRequest, decode_version, decode_video
from pipeline.decode.container import metadata_options, open_video
from pipeline.errors import ClipStatus, DecodeError
from tests.videos import (
    cut_start_mp4,
    flip_bits,
    marker_frame,
    read_markers,
    rotate_mp4,
    truncate,
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
    assert (video.padded, video.damaged, video.rotation) == (False, False, 0)
    assert (video.decoder, video.decoder_version) == ("pyav", decode_version("pyav"))


def test_views_come_in_their_order_from_one_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_video(tmp_path / "a.mp4", 30, width=96)
    opened = []
    monkeypatch.setattr(
        "pipeline.decode.pyav.open_video",
        lambda request: opened.append(request.path) or open_video(request),
    )
    views = list_views(2, 3)
    video = decode_video(_request(path, views=views))
    assert video.clips.shape == (6, 8, 64, 64, 3)
    assert video.clips.dtype == np.uint8
    assert opened == [str(path)]
    for view, clip in zip(views, video.clips, strict=True):
        alone = decode_video(_request(path, views=(view,)))
        np.testing.assert_array_equal(clip, alone.clips[0])
    assert not np.array_equal(video.clips[0], video.clips[2])


def test_a_header_that_miscounts_costs_a_second_pass_and_no_frame(tmp_path: Path) -> None:
    """The frame count in an AVI header is a guess: here it says 33 for 30."""
    path = write_video(tmp_path / "a.avi", 30, codec="mpeg4")
    data = bytearray(path.read_bytes())
    for chunk, offset in ((b"avih", 8 + 16), (b"strh", 8 + 32)):
        place = data.index(chunk) + offset
        assert data[place : place + 4] == (30).to_bytes(4, "little")
        data[place : place + 4] = (33).to_bytes(4, "little")
    path.write_bytes(data)
    with open_video(_request(path)) as (_, stream):
        assert stream.frames == 33
    video = decode_video(_request(path))
    assert video.num_frames_total == 30
    assert read_markers(video.clips[0]) == frame_indices(30, 8).tolist()


def test_frames_cut_by_an_edit_list_are_not_counted(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 30)
    cut_start_mp4(path, 5)
    video = decode_video(_request(path))
    assert video.num_frames_total == 25
    assert read_markers(video.clips[0]) == (5 + frame_indices(25, 8)).tolist()


@pytest.mark.parametrize("clockwise", [90, 180, 270])
def test_rotated_videos_are_turned_upright(tmp_path: Path, clockwise: int) -> None:
    def upright(number: int, height: int, width: int) -> np.ndarray:
        return np.rot90(marker_frame(number, *((width, height) if clockwise % 180 else
                        (height, width))), clockwise // 90).copy()  # fmt: skip

    path = write_video(tmp_path / "a.mp4", 20, 64, 64, frame=upright)
    rotate_mp4(path, clockwise)
    video = decode_video(_request(path))
    assert read_markers(video.clips[0]) == frame_indices(20, 8).tolist()
    assert video.rotation == 360 - clockwise


def test_rotation_swaps_the_sides_before_the_crop(tmp_path: Path) -> None:
    """A 64x96 landscape shown as portrait: the three crops lie above one another."""
    path = write_video(tmp_path / "a.mp4", 20, 64, 96)
    flat = decode_video(_request(path, views=list_views(1, 3)))
    rotate_mp4(path, 90)
    turned = decode_video(_request(path, views=list_views(1, 3)))
    for crop in range(3):  # left to right becomes top to bottom
        np.testing.assert_array_equal(turned.clips[crop], np.rot90(flat.clips[crop], 3, (1, 2)))


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


def test_of_two_video_streams_the_best_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "two.mp4"
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("mpeg4", rate=24) for _ in range(2)]
        for stream, side in zip(streams, (32, 64), strict=True):
            stream.width = stream.height = side
            stream.pix_fmt = "yuv420p"
        streams[1].disposition = Disposition.default
        for number in range(20):
            for stream, shown in zip(streams, (0, number), strict=True):
                picture = marker_frame(shown, stream.height, stream.width)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
        for stream in streams:
            container.mux(stream.encode())
    video = decode_video(_request(path))
    assert read_markers(video.clips[0]) == frame_indices(20, 8).tolist()


def test_short_videos_are_padded_and_shorter_ones_refused(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 3)
    video = decode_video(_request(path))
    assert video.padded
    assert read_markers(video.clips[0]) == frame_indices(3, 8).tolist()
    with pytest.raises(DecodeError, match=r"3 frame\(s\), fewer than the 4") as caught:
        decode_video(_request(path, min_frames=4))
    assert caught.value.status is ClipStatus.TOO_SHORT


def test_too_many_frames_are_refused_by_the_header_or_while_decoding(tmp_path: Path) -> None:
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
    fast = path.with_name("fast.mp4")
    with (
        av.open(str(path)) as source,
        av.open(str(fast), "w", options={"movflags": "faststart"}) as target,
    ):
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    return fast
