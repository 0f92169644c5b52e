"""Our resize and crop against the processor of the checkpoint, bit for bit."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from pipeline.clips.views import list_views, resized_shape
from pipeline.decode.request import DecodeRequest
from pipeline.decode.resize import ClipFiller, check_pixels, resize_frame
from pipeline.errors import ClipStatus, DecodeError

_SHAPES = [(133, 77), (77, 133), (256, 342), (342, 256), (240, 320), (64, 64), (224, 224), (9, 500)]


def _noise(height: int, width: int, num_frames: int = 1) -> npt.NDArray[np.uint8]:
    rng = np.random.default_rng(height * 1000 + width)
    return rng.integers(0, 256, size=(num_frames, height, width, 3), dtype=np.uint8)


def _processed(frames: npt.NDArray[np.uint8], short_side: int, crop: int | None) -> npt.NDArray:
    """What Hugging Face's processor makes of frames (T, H, W, 3): uint8 (T, h, w, 3)."""
    from transformers import VideoMAEImageProcessor

    processor = VideoMAEImageProcessor(
        size={"shortest_edge": short_side},
        do_center_crop=crop is not None,
        crop_size=crop or 1,
        do_rescale=False,
        do_normalize=False,
    )
    pixels = processor([list(frames)], return_tensors="pt")["pixel_values"][0]
    return pixels.numpy().transpose(0, 2, 3, 1).astype(np.uint8)


@pytest.mark.parametrize(("height", "width"), _SHAPES)
def test_one_centre_crop_equals_the_processor(height: int, width: int) -> None:
    frames = _noise(height, width, 2)
    request = DecodeRequest(path="", num_frames=2)
    filler = ClipFiller(request, request.slots(2))
    filler.set_first_shape(height, width)
    for index, frame in enumerate(frames):
        filler.add(index, frame)
    np.testing.assert_array_equal(filler.clips[0], _processed(frames, 224, 224))


@pytest.mark.parametrize(("height", "width"), _SHAPES)
def test_three_crops_are_cut_from_the_processors_resized_frame(height: int, width: int) -> None:
    """Crop side 224 of short side 256: start, floor centre and end of the long side."""
    frames = _noise(height, width)
    request = DecodeRequest(path="", num_frames=1, short_side=256, views=list_views(1, 3))
    filler = ClipFiller(request, request.slots(1))
    filler.set_first_shape(height, width)
    filler.add(0, frames[0])
    resized = _processed(frames, 256, None)[0]
    if height > width:
        resized = resized.transpose(1, 0, 2)
    length = resized.shape[1]
    for crop, start in enumerate((0, (length - 224) // 2, length - 224)):
        expected = resized[16:240, start : start + 224]
        if height > width:
            expected = expected.transpose(1, 0, 2)
        np.testing.assert_array_equal(filler.clips[crop, 0], expected)


def test_frames_after_a_size_change_take_the_shape_of_the_first() -> None:
    request = DecodeRequest(path="", num_frames=2, size=32, short_side=32)
    filler = ClipFiller(request, request.slots(2))
    filler.set_first_shape(64, 64)
    filler.add(0, _noise(64, 64)[0])
    later = _noise(48, 96)[0]
    filler.add(1, later)
    np.testing.assert_array_equal(filler.clips[0, 1], resize_frame(later, 32, 32))


def test_clips_that_lack_a_frame_are_not_given_away() -> None:
    request = DecodeRequest(path="", num_frames=2, size=32, short_side=32)
    filler = ClipFiller(request, request.slots(5))
    filler.set_first_shape(40, 40)
    first, second = sorted(request.slots(5))
    filler.add(first, _noise(40, 40)[0])
    with pytest.raises(DecodeError, match=f"frame {second} never came out"):
        filler.whole_clips()
    filler.add(second, _noise(40, 41)[0])
    np.testing.assert_array_equal(filler.whole_clips(), filler.clips)


def test_resize_takes_a_turned_view_of_a_frame() -> None:
    """`np.rot90` gives negative strides, which torch does not take."""
    frame = _noise(30, 50)[0]
    turned = resize_frame(np.rot90(frame), 25, 15)
    np.testing.assert_array_equal(turned, resize_frame(np.rot90(frame).copy(), 25, 15))


def test_frames_above_the_cap_are_too_large_before_and_after_resizing() -> None:
    request = DecodeRequest(path="", max_pixels=300 * 300)
    check_pixels(300, 300, request)
    with pytest.raises(DecodeError, match="301x300 pixels, more than the 90000 allowed") as caught:
        check_pixels(300, 301, request)
    assert caught.value.status is ClipStatus.TOO_LARGE
    filler = ClipFiller(request, request.slots(16))
    assert resized_shape(2, 400, 224) == (224, 44800)
    with pytest.raises(DecodeError, match="resized frame"):
        filler.set_first_shape(2, 400)
