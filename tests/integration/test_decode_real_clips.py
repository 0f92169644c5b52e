"""The real clips: every frame and pixel that of a plain decode through the processor."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest

from pipeline.clips.views import View, frame_indices, list_views
from pipeline.decode import DecodedVideo, DecodePool, DecodeRequest
from pipeline.errors import ClipStatus, DecodeError

pytestmark = pytest.mark.clips

_SUFFIXES = {".mp4", ".mkv", ".mov", ".avi", ".webm", ".gif", ".ts", ".mpg", ".h264"}
_FAIL = {
    "formats/audio_only.mp4": ClipStatus.DECODE_ERROR,
    "formats/no_keyframe_at_all.ts": ClipStatus.DECODE_ERROR,
    "formats/one_frame.mp4": ClipStatus.TOO_SHORT,
}
_DAMAGED = {"formats/corrupted.mp4"}
# What decord does with the files that it is not exact on.
_DECORD_REFUSES = {
    "formats/animated.gif": "the container gif",
    "formats/discard_first_keyframe.mp4": "edit list",
    "formats/h264_10bits.mp4": "8 bits",
    "formats/h265_10bits.mp4": "8 bits",
    "formats/mpeg4_bframes.avi": "B-frames",
    "formats/nasa_13013.mp4": "2 video tracks",
    "formats/no_keyframe_start.ts": "the container mpegts",
    "formats/odd_133x77_vp9.webm": "odd number of lines",
    "formats/raw.h264": "the container h264",
    "formats/sine_stereo_mp2.mpg": "the container mpeg",
    "hmdb51/": "B-frames",
    "ssv2/": "time stamps",  # these six were re-encoded with repeated ones; the originals were not
    "ucf101/videos/ApplyEyeMakeup": "B-frames",
}
_DECORD_FAILS = {
    "formats/av1_video.mkv",
    "formats/corrupted.mp4",
    "formats/tiny_16x16.mp4",
    "formats/audio_only.mp4",
    "formats/no_keyframe_at_all.ts",
    "formats/one_frame.mp4",
}


def _videos(clips_dir: Path) -> dict[str, Path]:
    videos = {
        path.relative_to(clips_dir).as_posix(): path
        for path in sorted(clips_dir.rglob("*"))
        if path.suffix in _SUFFIXES
    }
    assert len(videos) > 50
    return videos


@pytest.fixture(scope="module")
def pool() -> Iterator[DecodePool]:
    with DecodePool(2) as pool:
        yield pool


def _all_frames(path: Path) -> list[npt.NDArray[np.uint8]]:
    """Nothing but PyAV: every frame in output order, upright, errors skipped.

    In one thread: what FFmpeg puts in place of damaged parts depends on the number of threads.
    """
    frames = []
    with av.open(str(path), metadata_errors="replace") as container:
        stream = container.streams.best("video")
        stream.codec_context.thread_count = 1
        for packet in container.demux(stream):
            try:
                for frame in packet.decode():
                    image = frame.to_ndarray(format="rgb24")
                    frames.append(np.rot90(image, round(frame.rotation / 90)).copy())
            except (av.error.InvalidDataError, av.error.EOFError):
                continue
    return frames


def _processed(
    frames: list[npt.NDArray[np.uint8]], view: View, short_side: int, size: int
) -> npt.NDArray[np.uint8]:
    """Hugging Face's processor; for several crops, its resize alone and a cut by hand."""
    from transformers import VideoMAEImageProcessor

    processor = VideoMAEImageProcessor(
        size={"shortest_edge": short_side},
        crop_size=size,
        do_center_crop=view.num_crops == 1,
        do_rescale=False,
        do_normalize=False,
    )
    pixels = processor([frames], return_tensors="pt")["pixel_values"][0].numpy().astype(np.uint8)
    pixels = pixels.transpose(0, 2, 3, 1)
    if view.num_crops == 3:
        height, width = pixels.shape[1:3]
        top, left = (height - size) // 2, (width - size) // 2
        if height > width:
            top = (0, top, height - size)[view.crop]
        else:
            left = (0, left, width - size)[view.crop]
        pixels = pixels[:, top : top + size, left : left + size]
    return pixels


@pytest.mark.parametrize(
    ("num_segments", "num_crops", "short_side", "sampling"),
    [(1, 1, 224, "uniform"), pytest.param(2, 3, 256, "stride:4", marks=pytest.mark.slow)],
)
def test_every_clip_is_that_of_a_plain_decode_through_the_processor(
    pool: DecodePool,
    clips_dir: Path,
    num_segments: int,
    num_crops: int,
    short_side: int,
    sampling: str,
) -> None:
    videos = _videos(clips_dir)
    views = list_views(num_segments, num_crops)
    requests = [
        DecodeRequest(path=str(path), views=views, short_side=short_side, sampling=sampling)
        for path in videos.values()
    ]
    for (name, path), result in zip(videos.items(), pool.imap(requests), strict=True):
        if name in _FAIL:
            assert isinstance(result, DecodeError), name
            assert result.status is _FAIL[name]
            continue
        assert isinstance(result, DecodedVideo), (name, result)
        frames = _all_frames(path)
        assert result.num_frames_total == len(frames), name
        assert result.damaged == (name in _DAMAGED), name
        for view, clip in zip(views, result.clips, strict=True):
            indices = frame_indices(len(frames), 16, sampling, view.segment, num_segments)
            wanted = [frames[index] for index in indices]
            expected = _processed(wanted, view, short_side, 224)
            np.testing.assert_array_equal(clip, expected, err_msg=name)


@pytest.mark.parametrize("sampling", ["uniform", "stride:2"])
def test_decord_equals_pyav_where_it_is_not_refused(
    pool: DecodePool, clips_dir: Path, sampling: str
) -> None:
    pytest.importorskip("decord", reason="DECORD IS NOT INSTALLED")
    videos = _videos(clips_dir)
    requests = [
        DecodeRequest(path=str(path), sampling=sampling, decoder=decoder)
        for path in videos.values()
        for decoder in ("decord", "pyav")
    ]
    results = pool.imap(requests)
    num_equal = 0
    for name in videos:
        result, expected = next(results), next(results)
        reason = next((r for start, r in _DECORD_REFUSES.items() if name.startswith(start)), None)
        if reason is not None:
            assert isinstance(result, DecodeError), name
            assert result.status is ClipStatus.REFUSED, name
            assert reason in str(result), name
        elif name in _DECORD_FAILS:
            assert isinstance(result, DecodeError), name
            assert result.status in (ClipStatus.DECODE_ERROR, ClipStatus.TOO_SHORT), name
        else:
            assert isinstance(result, DecodedVideo), (name, result)
            assert isinstance(expected, DecodedVideo)
            assert result.num_frames_total == expected.num_frames_total, name
            difference = np.abs(result.clips.astype(int) - expected.clips).max()
            assert difference <= 2, (name, difference)
            num_equal += 1
    assert num_equal >= 25
