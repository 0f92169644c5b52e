"""What is said of tokens, over their frames."""

from __future__ import annotations

import numpy as np
import pytest

from selector.deploy.overlay import heat, paint_groups, veil_dropped


@pytest.fixture
def frames():
    return np.full((4, 16, 16, 3), 200, dtype=np.uint8)


@pytest.fixture
def kept():
    mask = np.zeros((2, 2, 2), dtype=bool)
    mask[0, 0, 1] = mask[1, 1, 0] = True
    return mask


def test_dropped_tokens_are_blue_in_every_frame_of_their_tubelet(frames, kept):
    shown = veil_dropped(frames, kept)
    expected = np.full((4, 16, 16, 3), [55, 70, 130], dtype=np.uint8)  # a fifth of 200, and blue
    expected[:2, :8, 8:] = expected[2:, 8:, :8] = 200
    assert np.array_equal(shown, expected)


@pytest.mark.parametrize("grey", [0, 15, 60, 128, 255])
def test_a_grey_that_is_kept_does_not_look_dropped_however_dark(kept, grey: int):
    frames = np.full((4, 16, 16, 3), grey, dtype=np.uint8)
    shown = veil_dropped(frames, kept).astype(int)
    assert (shown[:2, :8, 8:] == grey).all()
    others = np.concatenate(
        [veil_dropped(np.full_like(frames, g), ~kept)[0, 0, 15:] for g in range(256)]
    ).astype(int)  # every grey, dropped
    assert np.abs(others - grey).max(axis=1).min() > 25


def test_keeping_all_changes_nothing(frames):
    assert np.array_equal(veil_dropped(frames, np.ones((2, 2, 2), bool)), frames)


def test_a_heat_map_has_the_colour_of_its_value_over_the_grey_of_the_frame(frames):
    """Inferno begins at (0.001462, 0.000466, 0.013866) and ends at (0.988362, 0.998364, 0.644924).

    Over grey 200: 0.35 x 200 + 0.65 x 255 x colour.
    """
    values = np.zeros((2, 2, 2))
    values[0, 0, 1] = 0.5
    shown = heat(frames, values, 0.0, 0.5)
    assert shown.shape == frames.shape
    assert (shown[:2, :8, 8:] == [234, 235, 177]).all()
    rest = np.ones(frames.shape[:3], bool)
    rest[:2, :8, 8:] = False
    assert (shown[rest] == [70, 70, 72]).all()


def test_merged_tokens_have_their_mean_colour_and_one_alone_stays_as_it_is():
    frames = np.zeros((2, 2, 4, 3), np.uint8)
    frames[..., 0], frames[0, 0, 1] = [10, 20, 30, 40], [99, 99, 99]
    group = np.array([[[0, 1, 0, -1]]])
    shown = paint_groups(frames, group)
    # One token is 2 frames x 2 rows x 1 pixel: tokens 0 and 2 are red 10 and 30.
    assert (shown[:, :, [0, 2]] == [20, 0, 0]).all()
    assert shown[0, 0, 1].tolist() == [99, 99, 99]
    assert shown[1, 1, 1].tolist() == [20, 0, 0]
    assert (shown[:, :, 3] == [23, 30, 90]).all()  # dropped
