"""What may be asked of a decoder."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from pipeline.clips.views import list_views
from pipeline.decode import DecodeRequest
from pipeline.errors import ConfigError


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"sampling": "random"}, "sampling must be"),
        ({"decoder": "opencv"}, "decoder must be one of"),
        ({"views": ()}, "views must name"),
        ({"num_frames": 0}, "num_frames must be at least 1"),
        ({"size": 0}, "size must be at least 1"),
        ({"size": 224, "short_side": 223}, "short_side must be at least size"),
        ({"timeout_s": 0}, "timeout_s must be above 0"),
        ({"max_pixels": 0}, "max_pixels must be at least 1"),
        ({"max_frames": 0}, "max_frames must be at least 1"),
        ({"min_frames": 0}, "min_frames must be at least 1"),
    ],
)
def test_a_field_out_of_range_is_named(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DecodeRequest(path="a.mp4", **fields)


def test_slots_are_the_union_of_all_views_frames() -> None:
    """Views that share a segment share its frames; every place of every clip is filled once."""
    request = DecodeRequest(path="a.mp4", num_frames=4, views=list_views(2, 3))
    slots = request.slots(8)
    assert sorted(slots) == list(range(8))
    assert sorted((v, t) for places in slots.values() for v, t, _ in places) == [
        (view, time) for view in range(6) for time in range(4)
    ]
    assert request.slots(0) == {}


def test_a_video_is_padded_when_a_clip_repeats_a_frame() -> None:
    assert not DecodeRequest(path="a", num_frames=8).is_padded(8)
    assert DecodeRequest(path="a", num_frames=8).is_padded(7)
    assert not DecodeRequest(path="a", num_frames=8, sampling="stride:4").is_padded(29)
    assert DecodeRequest(path="a", num_frames=8, sampling="stride:4").is_padded(28)


def test_requests_survive_pickling() -> None:
    request = DecodeRequest(path="a.mp4", views=list_views(2, 3), sampling="stride:2")
    assert pickle.loads(pickle.dumps(request)) == request
