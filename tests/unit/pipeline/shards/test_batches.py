"""Requests and batches: views of a video decoded once, slots that do not depend on failures."""

from __future__ import annotations

import numpy as np

from pipeline.clips.views import View
from pipeline.decode import DecodedVideo
from pipeline.errors import ClipStatus, DecodeError
from pipeline.shards.loader import assemble, group_by_video

SHAPE = (2, 4, 4, 3)
TEMPLATE = {"num_frames": 2, "size": 4, "short_side": 4}


def make_plan(*videos, segments=1, crops=2):
    rows = [(video, s, c) for video in videos for s in range(segments) for c in range(crops)]
    return {
        "video_id": [video for video, _, _ in rows],
        "path": [f"sub/{video}.mp4" for video, _, _ in rows],
        "segment": [segment for _, segment, _ in rows],
        "crop": [crop for _, _, crop in rows],
    }


def make_groups(plan, wanted=None):
    wanted = range(len(plan["video_id"])) if wanted is None else wanted
    return group_by_video(plan, wanted, "/data", (1, 2), TEMPLATE)


def decoded(request):
    """One clip per view, filled with 10 * crop + 1."""
    clips = np.stack([np.full(SHAPE, 10 * view.crop + 1, np.uint8) for view in request.views])
    return DecodedVideo(
        clips=clips,
        num_frames_total=9,
        padded=False,
        damaged=False,
        decoder="pyav",
        decoder_version="1",
    )


def failed(request):
    return DecodeError(ClipStatus.DECODE_ERROR, "broken")


def run(groups, answers, num_clips, batch_size=2):
    failures: list[int] = []
    arrivals = (answer(group.request) for group, answer in zip(groups, answers, strict=True))
    batches = list(
        assemble(groups, arrivals, num_clips, batch_size, SHAPE, lambda p, e: failures.append(p))
    )
    return batches, failures


def test_the_views_of_a_video_are_one_request():
    groups = make_groups(make_plan("a", "b"))
    assert [group.positions for group in groups] == [(0, 1), (2, 3)]
    assert groups[1].request.path == "/data/sub/b.mp4"
    assert groups[1].request.views == (View(0, 0, 1, 2), View(0, 1, 1, 2))


def test_only_wanted_views_are_asked_for():
    groups = make_groups(make_plan("a", "b"), wanted=[1, 2, 3])
    assert [group.positions for group in groups] == [(1,), (2, 3)]
    assert groups[0].request.views == (View(0, 1, 1, 2),)


def test_batches_are_cut_by_position_even_through_a_video():
    groups = make_groups(make_plan("a", "b", "c"))
    batches, failures = run(groups, [decoded] * 3, 6, batch_size=4)
    assert [list(batch.positions) for batch in batches] == [[0, 1, 2, 3], [4, 5]]
    assert [batch.clips[:, 0, 0, 0, 0].tolist() for batch in batches] == [[1, 11, 1, 11], [1, 11]]
    assert failures == []


def test_a_failed_video_leaves_its_slots_black_and_the_others_where_they_were():
    groups = make_groups(make_plan("a", "b", "c"))
    batches, failures = run(groups, [decoded, failed, decoded], 6, batch_size=4)
    assert failures == [2, 3]
    assert batches[0].clips[:, 0, 0, 0, 0].tolist() == [1, 11, 0, 0]
    assert sorted(batches[0].facts) == [0, 1]
    assert sorted(batches[1].facts) == [4, 5]


def test_rows_that_are_not_wanted_leave_black_slots_too():
    groups = make_groups(make_plan("a", "b"), wanted=[3])
    batches, _ = run(groups, [decoded], 4, batch_size=4)
    assert batches[0].clips[:, 0, 0, 0, 0].tolist() == [0, 0, 0, 11]


def test_a_batch_without_any_clip_is_left_out():
    groups = make_groups(make_plan("a", "b"))
    batches, failures = run(groups, [failed, decoded], 4)
    assert [batch.start for batch in batches] == [2]
    assert failures == [0, 1]


def test_decoding_is_never_asked_further_than_the_batch_in_hand():
    groups = make_groups(make_plan("a", "b", "c", "d"))
    taken = []

    def arrivals():
        for group in groups:
            taken.append(group.positions)
            yield decoded(group.request)

    batches = assemble(groups, arrivals(), 8, 2, SHAPE, lambda position, error: None)
    next(batches)
    assert taken == [(0, 1)]


def test_facts_do_not_hold_on_to_pixels():
    groups = make_groups(make_plan("a"))
    batches, _ = run(groups, [decoded], 2)
    assert not any(isinstance(fact, np.ndarray) for fact in batches[0].facts[0].values())
