"""Frames are shown as players show them: all eight orientations, and nothing in between."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest

from pipeline.clips.views import list_views
from pipeline.decode import DecodedVideo, DecodePool, DecodeRequest, decode_video
from pipeline.decode.orientation import Orientation
from pipeline.errors import ClipStatus, DecodeError
from tests.videos import orient_mp4, write_video

_COLOURS = {
    "red": (235, 20, 20),
    "green": (20, 235, 20),
    "blue": (20, 20, 235),
    "white": (235,) * 3,
}
_MATRICES = {
    "none": (1, 0, 0, 1),
    "half turn": (-1, 0, 0, -1),
    "quarter turn": (0, 1, -1, 0),
    "three quarter turn": (0, -1, 1, 0),
    "mirrored left to right": (-1, 0, 0, 1),
    "mirrored top to bottom": (1, 0, 0, -1),
    "transposed": (0, 1, 1, 0),
    "transposed the other way": (0, -1, -1, 0),
}
_MIRRORED = [name for name in _MATRICES if name.startswith(("mirrored", "transposed"))]
_CORNERS = {  # top left, top right, bottom left, bottom right, as a player shows them
    "none": ["red", "green", "blue", "white"],
    "half turn": ["white", "blue", "green", "red"],
    "quarter turn": ["blue", "red", "white", "green"],
    "three quarter turn": ["green", "white", "red", "blue"],
    "mirrored left to right": ["green", "red", "white", "blue"],
    "mirrored top to bottom": ["blue", "white", "red", "green"],
    "transposed": ["red", "blue", "green", "white"],
    "transposed the other way": ["white", "green", "blue", "red"],
}


def _quadrants(number: int, height: int, width: int) -> npt.NDArray[np.uint8]:
    """Red and green above blue and white, with a stripe that belongs to one frame."""
    frame = np.zeros((height, width, 3), np.uint8)
    top, left = np.arange(height)[:, None] < height // 2, np.arange(width) < width // 2
    for colour, where in zip(
        _COLOURS.values(), (top & left, top & ~left, ~top & left, ~top & ~left), strict=True
    ):
        frame[where] = colour
    frame[height // 4 : height // 4 + 4, 8 + 2 * number : 12 + 2 * number] = 20
    return frame


def _corners(frame: npt.NDArray[np.uint8]) -> list[str]:
    def name(pixel: npt.NDArray[np.uint8]) -> str:
        away = {name: np.abs(np.array(c) - pixel).sum() for name, c in _COLOURS.items()}
        return min(away, key=lambda name: away[name])

    return [name(frame[y, x]) for y in (4, -5) for x in (4, -5)]


def _shown(
    frame: npt.NDArray[np.uint8], matrix: tuple[float, float, float, float]
) -> npt.NDArray[np.uint8]:
    """The definition of the display matrix, pixel by pixel."""
    a, b, c, d = matrix
    height, width = frame.shape[:2]
    places = {
        (y, x): (round(b * x + d * y), round(a * x + c * y))
        for y in range(height)
        for x in range(width)
    }
    top, left = (min(place[axis] for place in places.values()) for axis in (0, 1))
    shape = (width, height) if b else (height, width)
    shown = np.zeros((*shape, 3), np.uint8)
    for stored, (y, x) in places.items():
        shown[y - top, x - left] = frame[stored]
    return shown


@pytest.fixture(scope="module")
def pool() -> Iterator[DecodePool]:
    with DecodePool(1) as pool:
        yield pool


def _request(path: Path, decoder: str = "pyav", **fields: object) -> DecodeRequest:
    return DecodeRequest(
        path=str(path), num_frames=4, size=64, short_side=64, decoder=decoder, **fields
    )


@pytest.mark.parametrize("name", _MATRICES)
def test_frames_are_shown_as_the_display_matrix_says(tmp_path: Path, name: str) -> None:
    """A 64x96 frame in three crops, which lie above one another once it is turned."""
    path = write_video(tmp_path / "a.mp4", 4, 64, 96, frame=_quadrants)
    with av.open(str(path)) as container:
        stored = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    orient_mp4(path, _MATRICES[name])
    video = decode_video(_request(path, views=list_views(1, 3)))
    for number, frame in enumerate(stored):
        shown = _shown(frame, _MATRICES[name])
        assert _corners(shown) == _CORNERS[name]
        for crop, start in enumerate((0, 16, 32)):
            part = shown[start : start + 64] if shown.shape[0] > 64 else shown[:, start:][:, :64]
            np.testing.assert_array_equal(video.clips[crop, number], part)


@pytest.mark.parametrize("name", _MATRICES)
def test_decord_shows_the_same_or_refuses(pool: DecodePool, tmp_path: Path, name: str) -> None:
    pytest.importorskip("decord", reason="DECORD IS NOT INSTALLED")
    path = write_video(tmp_path / "a.mp4", 20, 128, 192, frame=_quadrants)
    orient_mp4(path, _MATRICES[name])
    (video,) = pool.imap([_request(path, "decord")])
    if name in _MIRRORED:
        assert isinstance(video, DecodeError)
        assert video.status is ClipStatus.REFUSED
        assert "shown mirrored: use --decoder pyav" in str(video)
    else:
        assert isinstance(video, DecodedVideo)
        expected = decode_video(_request(path)).clips
        assert np.abs(video.clips.astype(int) - expected).max() <= 2


@pytest.mark.parametrize("matrix", [(0.8, 0.6, -0.6, 0.8), (1, 0.5, 0, 1), (1, 0, 0, 0)])
def test_a_slanted_picture_is_refused(
    tmp_path: Path, matrix: tuple[float, float, float, float]
) -> None:
    """Turned by 37 degrees, sheared, flat: no view of the frame shows it."""
    path = write_video(tmp_path / "a.mp4", 8)
    orient_mp4(path, matrix)
    with pytest.raises(DecodeError, match="multiple of 90 degrees") as caught:
        decode_video(_request(path))
    assert caught.value.status is ClipStatus.REFUSED


@pytest.mark.parametrize("matrix", [(2, 0, 0, -1), (0.9999, 0.01, 0.01, -0.9999)])
def test_a_scale_or_a_rounding_error_in_the_matrix_does_not_matter(
    tmp_path: Path, matrix: tuple[float, float, float, float]
) -> None:
    path = write_video(tmp_path / "a.mp4", 8, frame=_quadrants)
    orient_mp4(path, matrix)
    shown = decode_video(_request(path)).clips[0, 0]
    assert _corners(shown) == _CORNERS["mirrored top to bottom"]


def test_an_empty_matrix_is_no_matrix(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 8, frame=_quadrants)
    orient_mp4(path, (0, 0, 0, 0))
    assert _corners(decode_video(_request(path)).clips[0, 0]) == _CORNERS["none"]


def test_an_orientation_that_changes_within_the_video_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As H.264 can have it: the message that tells it need not be repeated with every frame."""
    path = write_video(tmp_path / "a.mp4", 8)
    orientations = iter([Orientation()] * 3 + [Orientation(flip_x=True)] * 9)
    monkeypatch.setattr(Orientation, "of", lambda frame: next(orientations))
    with pytest.raises(DecodeError, match="changes within the video") as caught:
        decode_video(_request(path))
    assert caught.value.status is ClipStatus.REFUSED
