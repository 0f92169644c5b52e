"""The picture of what was kept."""

from __future__ import annotations

import av
import numpy as np
import pytest
from PIL import Image

from pipeline.errors import ConfigError
from selector.deploy.overlay import contact_sheet, darken_dropped, save_overlay


@pytest.fixture
def frames():
    return np.full((4, 16, 16, 3), 200, dtype=np.uint8)


@pytest.fixture
def kept():
    mask = np.zeros((2, 2, 2), dtype=bool)
    mask[0, 0, 1] = mask[1, 1, 0] = True
    return mask


def test_dropped_tokens_are_dark_in_every_frame_of_their_tubelet(frames, kept):
    shown = darken_dropped(frames, kept)
    expected = np.full((4, 16, 16, 3), 40, dtype=np.uint8)
    expected[:2, :8, 8:] = expected[2:, 8:, :8] = 200
    assert np.array_equal(shown, expected)


def test_keeping_all_changes_nothing(frames):
    assert np.array_equal(darken_dropped(frames, np.ones((2, 2, 2), bool)), frames)


def test_frames_lie_in_rows_from_the_top_left():
    frames = np.stack([np.full((2, 3, 3), i, dtype=np.uint8) for i in range(5)])
    sheet = contact_sheet(frames)
    assert sheet.shape == (2 * 2 + 4, 3 * 3 + 2 * 4, 3)
    corners = [sheet[row, column, 0] for row in (0, 6) for column in (0, 7, 14)]
    assert corners == [0, 1, 2, 3, 4, 255]


def test_a_png_shows_all_frames_large_enough_to_see(frames, kept, tmp_path):
    save_overlay(tmp_path / "mask.png", frames, kept)
    picture = np.asarray(Image.open(tmp_path / "mask.png"))
    assert picture.shape == (2 * 224 + 4, 2 * 224 + 4, 3)
    assert picture[0, 0].tolist() == [40] * 3
    assert picture[0, 223].tolist() == [200] * 3


def test_a_video_has_the_frames_in_order(frames, kept, tmp_path):
    save_overlay(tmp_path / "mask.mp4", frames, kept)
    with av.open(str(tmp_path / "mask.mp4")) as container:
        shown = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
    assert len(shown) == 4
    assert shown[0].shape == (224, 224, 3)
    right_top = [int(frame[20, 200].mean()) for frame in shown]
    assert all(abs(v - w) < 8 for v, w in zip(right_top, [200, 200, 40, 40], strict=True))


@pytest.mark.parametrize("name", ["mask.gif", "nowhere/mask.png"])
def test_files_that_cannot_be_written_are_refused(frames, kept, tmp_path, name):
    with pytest.raises(ConfigError, match=r"must end in|does not exist"):
        save_overlay(tmp_path / name, frames, kept)
