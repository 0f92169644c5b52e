"""Windows of long files and live sources: the right frames, bounded memory, and a clean end."""

from __future__ import annotations

import os
import socket
import tracemalloc

import numpy as np
import pytest

from pipeline.clips.views import frame_indices
from pipeline.decode import sliding
from pipeline.decode.pipes import receive, send
from pipeline.decode.process import DecoderProcess
from pipeline.decode.request import DecodeRequest
from pipeline.decode.sliding import serve_windows, slide
from pipeline.decode.windows import Span, WindowRequest, read_windows
from pipeline.errors import ClipStatus, ConfigError, DecodeError
from tests.rtsp import camera
from tests.videos import flip_bits, read_markers, sender, truncate, write_video


def asked(path, window, stride=None, live=False, **clip):
    given = {"num_frames": 4, "size": 64, "short_side": 64} | clip
    return WindowRequest(
        clip=DecodeRequest(path=str(path), **given),
        window=Span.parse(window),
        stride=None if stride is None else Span.parse(stride),
        live=live,
    )


def read(request):
    return [window for window in read_windows(request) if window is not None]


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("video") / "markers.mp4", 50)


@pytest.fixture(scope="module")
def stream(tmp_path_factory):
    path = tmp_path_factory.mktemp("stream") / "markers.ts"
    return write_video(path, 50, codec="mpeg2video", rate=25).read_bytes()


@pytest.mark.parametrize(
    ("window", "stride", "expected"),
    [
        ("16f", None, [(0, 16), (16, 16), (32, 16), (48, 2)]),
        ("1s", None, [(0, 24), (24, 24), (48, 2)]),
        ("0.5", "1s", [(0, 12), (24, 12), (48, 2)]),
        ("16f", "8f", [(0, 16), (8, 16), (16, 16), (24, 16), (32, 16), (40, 10)]),
        ("7f", None, [(0, 7), (7, 7), (14, 7), (21, 7), (28, 7), (35, 7), (42, 7)]),  # 1 is left
        ("50f", "10f", [(0, 50)]),
        ("500f", "50f", [(0, 50)]),
    ],
)
@pytest.mark.parametrize("sampling", ["uniform", "stride:2"])
def test_every_window_is_sampled_as_a_video_of_its_frames(
    video, window, stride, expected, sampling
):
    found = read(asked(video, window, stride, sampling=sampling))
    assert [(w.start_frame, w.decoded.num_frames_total) for w in found] == expected
    for at, (start, length) in zip(found, expected, strict=True):
        frames = [start + i for i in frame_indices(length, 4, sampling)]
        assert read_markers(at.decoded.clips[0]) == frames
        assert (at.start_s, at.end_s) == pytest.approx((start / 24, (start + length) / 24))
        assert at.decoded.padded == (len(set(frames)) < 4)
        assert not at.decoded.damaged


def test_times_are_those_of_the_frames_and_not_of_their_rate(tmp_path):
    path = write_video(tmp_path / "vfr.mp4", 12, times=[n * n for n in range(12)])
    found = read(asked(path, "4f"))
    assert [w.start_s for w in found] == pytest.approx([0, 16 / 24, 64 / 24])


def test_a_damaged_place_concerns_its_windows_alone(tmp_path):
    path = write_video(tmp_path / "markers.mp4", 48, 128, 128, options={"g": "8"})
    flip_bits(path, 1, share=0.02, start=0.5, end=0.75)
    flags = [w.decoded.damaged for w in read(asked(path, "8f"))]
    assert any(flags)
    assert not flags[0]


def test_a_file_that_was_cut_ends_in_a_damaged_window(tmp_path, video):
    cut = tmp_path / "cut.mkv"
    write_video(cut, 50, options={"g": "10"})
    truncate(cut, 0.6)
    found = read(asked(cut, "8f"))
    assert 0 < sum(w.decoded.num_frames_total for w in found) < 50
    assert [w.decoded.damaged for w in found] == [False] * (len(found) - 1) + [True]


def peak_of(request):
    tracemalloc.start()
    try:
        number = sum(window is not None for window in read_windows(request))
        return number, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_video(tmp_path):
    """Of what Python and NumPy hold; the packets lie in FFmpeg, which reads one at a time."""
    short, long = (
        write_video(tmp_path / f"{num}.mp4", num, 32, 32, options={"preset": "ultrafast"})
        for num in (80, 640)
    )
    sizes = {"size": 32, "short_side": 32}
    read(asked(short, "8f", "4f", **sizes))  # what is imported late
    few, low = peak_of(asked(short, "8f", "4f", **sizes))
    many, high = peak_of(asked(long, "8f", "4f", **sizes))
    assert (few, many) == (19, 159)
    clip = 4 * 32 * 32 * 3
    assert high < low + 5 * clip  # all of them are 159 clips


@pytest.mark.parametrize(
    ("window", "stride", "message"),
    [
        ("0f", None, "such as 64f"),
        ("-1", None, "such as 64f"),
        ("2 minutes", None, "such as 64f"),
        ("1f", None, "shorter than one tubelet"),
        ("500f", "2f", "longer stride"),
    ],
)
def test_windows_that_make_no_sense_are_refused(video, window, stride, message):
    with pytest.raises(ConfigError, match=message):
        read(asked(video, window, stride))


def test_other_decoders_cannot():
    with pytest.raises(ConfigError, match="by the decoder pyav"):
        asked("a.mp4", "2s", decoder="torchcodec")


def test_the_process_gives_the_same_windows_and_its_errors(video, tmp_path):
    request = asked(video, "16f", "8f")
    expected, found = read(request), list(slide(request))
    assert [w.start_frame for w in found] == [w.start_frame for w in expected]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one.decoded.clips, other.decoded.clips)
    with pytest.raises(DecodeError) as caught:
        list(slide(asked(tmp_path / "none.mp4", "1s")))
    assert caught.value.status is ClipStatus.MISSING_FILE


def test_who_is_slower_than_a_live_source_loses_windows_and_is_told(video, monkeypatch):
    turns, give = os.pipe()
    answers, answer = os.pipe()
    windows = read(asked(video, "10f", size=16, short_side=16))  # small enough for the pipe

    def read_slowly(request):
        for number, window in enumerate(windows):
            if number in (0, 3):
                send(give, "turn")
            yield window

    monkeypatch.setattr(sliding, "read_windows", read_slowly)
    serve_windows(asked("udp://127.0.0.1:1", "10f", live=True), turns, answer)
    got = [receive(answers, 1) for _ in range(3)]
    assert [(w.start_frame, w.num_skipped) for w in got[:2]] == [(0, 0), (30, 2)]
    assert got[2].num_skipped == 1  # of the fifth
    for descriptor in (turns, give, answers, answer):
        os.close(descriptor)


def test_turns_that_nobody_took_end_the_process_quietly(tmp_path):
    child = DecoderProcess()
    child.wait_until_ready()
    send(child.requests, asked(tmp_path / "none.mp4", "1s"))
    for _ in range(3):
        send(child.requests, "turn")
    assert isinstance(receive(child.answers, 60), DecodeError)
    assert child.wait() == 0


def test_a_camera_is_read_over_rtsp_by_who_may(stream):
    with camera(stream) as port:
        found = read(asked(f"rtsp://user:secret@127.0.0.1:{port}/x", "20f", live=True))
    assert [w.start_frame for w in found] == [0, 20]
    assert read_markers(found[1].decoded.clips[0]) == [20 + i for i in frame_indices(20, 4)]
    with camera(stream) as port, pytest.raises(DecodeError, match="401 Unauthorized"):
        read(asked(f"rtsp://user:other@127.0.0.1:{port}/x", "20f", live=True))


def test_a_live_stream_is_read_to_its_end(stream):
    with sender(stream) as address:
        found = read(asked(address, "20f", live=True))
    assert [w.start_frame for w in found] == [0, 20]  # the last ten frames fill no window
    assert read_markers(found[1].decoded.clips[0]) == [20 + i for i in frame_indices(20, 4)]
    assert (found[1].start_s, found[1].end_s) == pytest.approx((0.8, 1.6))


def test_a_camera_that_starts_anew_does_not_turn_back_the_time(stream):
    with sender(stream + stream) as address:
        found = read(asked(address, "40f", live=True))
    # Two seconds of frames, and the same two again: the second window spans both.
    assert [w.start_s for w in found] == pytest.approx([0.0, 1.6], abs=0.05)
    assert [w.end_s for w in found] == pytest.approx([1.6, 3.2], abs=0.05)


def test_a_live_stream_that_falls_silent_says_so(stream):
    with (
        sender(stream, then_close=False) as address,
        pytest.raises(DecodeError, match="nothing came from it for 1 s: is the address right"),
    ):
        read(asked(address, "20f", live=True, timeout_s=1))


def test_a_live_stream_that_ends_too_soon_says_so(stream):
    with sender(stream) as address, pytest.raises(DecodeError, match="50 frames, within its first"):
        read(asked(address, "60f", live=True))


@pytest.mark.parametrize(
    ("data", "closes", "message"),
    [(b"", False, "nothing came from it for 0.5 s"), (b"#EXTM3U\n" * 999, True, "no video|read")],
)
def test_what_sends_no_video_is_named(data, closes, message):
    with sender(data, then_close=closes) as address, pytest.raises(DecodeError, match=message):
        read(asked(address, "20f", live=True, timeout_s=0.5))


def test_nobody_there_and_no_camera():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(DecodeError, match="cannot be read: Connection refused"):
        read(asked(f"tcp://127.0.0.1:{port}", "2s", live=True))
    with pytest.raises(DecodeError, match="no such camera"):
        read(asked("/dev/video99", "2s", live=True))


@pytest.mark.parametrize("address", ["clip.mp4", "file:///etc/passwd", "concat:a|b", "rtsp://", ""])
def test_what_is_no_live_source_is_refused(address):
    with pytest.raises(ConfigError, match="is no live source"):
        asked(address, "2s", live=True)


def test_an_address_is_never_taken_for_a_file():
    with pytest.raises(DecodeError) as caught:
        read(asked("tcp://127.0.0.1:1", "2s"))
    assert caught.value.status is ClipStatus.MISSING_FILE
