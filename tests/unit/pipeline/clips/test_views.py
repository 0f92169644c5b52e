"""Which frames and which pixels a view takes."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.clips.views import (
    Sampling,
    View,
    crop_box,
    frame_indices,
    list_views,
    parse_views,
    resized_shape,
)
from pipeline.errors import ConfigError


@pytest.mark.parametrize("num_total", [16, 17, 31, 48, 83, 303, 999])
def test_uniform_single_segment_is_the_middle_of_each_part(num_total: int) -> None:
    """The rule as VideoMAE writes it: int(tick / 2 + tick * x)."""
    tick = num_total / 16
    expected = [int(tick / 2.0 + tick * x) for x in range(16)]
    assert frame_indices(num_total, 16).tolist() == expected


@pytest.mark.parametrize("num_total", [5, 16, 31, 48, 83, 303, 999])
def test_uniform_two_segments_are_videomaes_test_segments(num_total: int) -> None:
    """VideoMAE sorts starts and middles of all parts and deals them out alternately."""
    tick = num_total / 16
    both = sorted(
        [int(tick / 2.0 + tick * x) for x in range(16)] + [int(tick * x) for x in range(16)]
    )
    for segment in range(2):
        got = frame_indices(num_total, 16, "uniform", segment, 2)
        assert got.tolist() == both[segment::2]


@pytest.mark.parametrize("num_total", [10, 61, 62, 64, 150, 303])
@pytest.mark.parametrize("num_segments", [2, 5])
def test_stride_segments_are_videomaes_kinetics_windows(num_total: int, num_segments: int) -> None:
    """VideoMAE takes every 4th frame, pads with the last, and slides a window of 16 over them."""
    strided = list(range(0, num_total, 4))
    while len(strided) < 16:
        strided.append(strided[-1])
    step = max((len(strided) - 16) / (num_segments - 1), 0)
    for segment in range(num_segments):
        start = int(segment * step)
        got = frame_indices(num_total, 16, "stride:4", segment, num_segments)
        assert got.tolist() == strided[start : start + 16]


def test_stride_single_segment_is_centred() -> None:
    assert frame_indices(100, 16, "stride:2").tolist() == list(range(34, 66, 2))


@pytest.mark.parametrize("sampling", ["uniform", "stride:1", "stride:4", "stride:100"])
@pytest.mark.parametrize("num_segments", [1, 2, 3])
def test_indices_ascend_within_the_video_however_short_it_is(
    sampling: str, num_segments: int
) -> None:
    for num_total in range(1, 70):
        for segment in range(num_segments):
            indices = frame_indices(num_total, 16, sampling, segment, num_segments)
            assert indices.dtype == np.int64
            assert indices.shape == (16,)
            assert 0 <= indices[0] <= indices[-1] < num_total
            assert (np.diff(indices) >= 0).all()


def test_short_videos_repeat_frames_by_rounding() -> None:
    assert frame_indices(3, 6).tolist() == [0, 0, 1, 1, 2, 2]
    assert frame_indices(1, 4).tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("num_total", "num_frames", "segment", "num_segments"),
    [(0, 16, 0, 1), (10, 0, 0, 1), (10, 16, 1, 1), (10, 16, -1, 2)],
)
def test_indices_that_cannot_be_are_refused(
    num_total: int, num_frames: int, segment: int, num_segments: int
) -> None:
    with pytest.raises(ConfigError):
        frame_indices(num_total, num_frames, "uniform", segment, num_segments)


def test_sampling_reads_its_two_forms_and_nothing_else() -> None:
    assert Sampling.parse("uniform") == Sampling(None)
    assert Sampling.parse("stride:4") == Sampling(4)
    for text in ("", "stride", "stride:0", "stride:-1", "stride:x", "Uniform", "stride:4 "):
        with pytest.raises(ConfigError, match="sampling must be"):
            Sampling.parse(text)


def test_views_run_over_crops_first() -> None:
    assert parse_views("2x3") == (2, 3)
    views = list_views(2, 3)
    assert [(view.segment, view.crop) for view in views] == [
        (0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2),
    ]  # fmt: skip
    assert list(views) == sorted(views)
    for text in ("", "2", "0x1", "1x0", "2x3x4", "2*3", "-1x2"):
        with pytest.raises(ConfigError, match="views must be"):
            parse_views(text)
    with pytest.raises(ConfigError, match="no such view"):
        View(2, 0, 2, 1)


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [(256, 342, (224, 299)), (342, 256, (299, 224)), (77, 133, (224, 386)), (50, 50, (224, 224))],
)
def test_resized_long_side_is_rounded_down(
    height: int, width: int, expected: tuple[int, int]
) -> None:
    assert resized_shape(height, width, 224) == expected


def test_crops_are_floor_centre_or_spread_over_the_long_side() -> None:
    assert crop_box(224, 299, 224) == (0, 37)  # 37.5: torchvision's CenterCrop would take 38
    assert [crop_box(224, 299, 224, crop, 3) for crop in range(3)] == [(0, 0), (0, 37), (0, 75)]
    assert [crop_box(299, 224, 224, crop, 3) for crop in range(3)] == [(0, 0), (37, 0), (75, 0)]
    assert [crop_box(256, 340, 224, crop, 3) for crop in range(3)] == [(16, 0), (16, 58), (16, 116)]
    assert crop_box(256, 256, 224, 0, 2) == (16, 0)
    with pytest.raises(ConfigError):
        crop_box(200, 300, 224)
    with pytest.raises(ConfigError):
        crop_box(224, 300, 224, 3, 3)
