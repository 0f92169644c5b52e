"""The plan: order, shards, sampling and identity."""

from __future__ import annotations

import random

import pytest

from datasets_spec.types import Video
from pipeline.clips.plan import build_plan, plan_digest, units
from pipeline.errors import ConfigError
from pipeline.store.layout import PLAN_SCHEMA


def make_videos(n, **changes):
    return [
        Video(
            **{"video_id": f"v{i:03d}", "path": f"{i}.mp4", "label": i % 3, "split": "val"}
            | changes
        )
        for i in range(n)
    ]


def test_rows_are_sorted_and_numbered_whatever_the_order_of_the_videos():
    videos = make_videos(10)
    shuffled = random.Random(0).sample(videos, 10)
    plan = build_plan(shuffled, (2, 3), shard_size=16)
    assert plan.schema.equals(PLAN_SCHEMA, check_metadata=True)
    assert plan.equals(build_plan(videos, (2, 3), shard_size=16))
    rows = plan.to_pylist()
    keys = [(row["video_id"], row["segment"], row["crop"]) for row in rows]
    assert keys == sorted(keys)
    assert len(set(keys)) == 60
    assert [row["clip_id"] for row in rows] == list(range(60))
    assert [row["shard"] for row in rows] == [i // 16 for i in range(60)]
    assert rows[7] == {
        "clip_id": 7, "shard": 0, "video_id": "v001", "path": "1.mp4", "label": 1,
        "split": "val", "segment": 0, "crop": 1,
    }  # fmt: skip


def test_an_unknown_label_is_minus_one():
    plan = build_plan(make_videos(2, label=None), (1, 1), shard_size=4)
    assert plan["label"].to_pylist() == [-1, -1]


def test_a_limit_is_a_stable_even_sample_of_videos():
    videos = make_videos(200)
    small = set(build_plan(videos, (1, 2), 8, limit=20)["video_id"].to_pylist())
    large = set(build_plan(videos[::-1], (1, 2), 8, limit=40)["video_id"].to_pylist())
    assert len(small) == 20
    assert len(large) == 40
    assert small < large
    # Not simply the first ids: about half of the sample lies in the second half of the list.
    assert 10 <= sum(video_id >= "v100" for video_id in large) <= 30


def test_a_limit_above_the_number_of_videos_takes_all():
    assert build_plan(make_videos(5), (1, 1), 8, limit=99).num_rows == 5


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_below_one_is_refused(limit):
    with pytest.raises(ConfigError, match="limit"):
        build_plan(make_videos(5), (1, 1), 8, limit=limit)


def test_no_videos_is_refused():
    with pytest.raises(ConfigError, match="no video"):
        build_plan([], (1, 1), 8)


def test_a_video_listed_twice_is_refused():
    with pytest.raises(ConfigError, match=r"'v001' is listed twice"):
        build_plan(make_videos(3) + make_videos(2)[1:], (1, 1), 8)


@pytest.mark.parametrize(
    "change", [{"video_id": "other"}, {"path": "other.mp4"}, {"label": 7}, {"split": "train"}]
)
def test_the_digest_changes_with_every_field_of_a_video(change):
    digest = plan_digest(build_plan(make_videos(1), (1, 1), 8))
    assert digest != plan_digest(build_plan(make_videos(1, **change), (1, 1), 8))


def test_the_digest_knows_the_views_but_not_the_shards():
    videos = make_videos(4)
    digest = plan_digest(build_plan(videos, (1, 2), 8))
    assert digest == plan_digest(build_plan(videos, (1, 2), 3))
    assert digest != plan_digest(build_plan(videos, (2, 1), 8))
    assert digest != plan_digest(build_plan(videos, (1, 3), 8))


def test_the_digest_does_not_confuse_neighbouring_strings():
    def digest(*ids):
        videos = [Video(video_id=i, path="p", label=0, split="s") for i in ids]
        return plan_digest(build_plan(videos, (1, 1), 8))

    assert digest("ab", "c") != digest("a", "bc")


def test_the_digest_is_pinned():
    # A change here would make every existing store refuse to be continued.
    plan = build_plan(make_videos(3), (1, 2), 8)
    assert plan_digest(plan).startswith("0fb8a6d6a4ef79ee")


def with_groups(*groups):
    return [
        Video(f"v{i}", f"{i}.mp4", label=0, split="val", group=group)
        for i, group in enumerate(groups)
    ]


def test_a_group_stands_in_the_plan_and_makes_one_unit_of_its_videos():
    plan = build_plan(with_groups("b", None, "b"), (1, 2), 8)
    assert plan.column_names == [*PLAN_SCHEMA.names, "group"]
    assert plan["group"].to_pylist() == ["b", "b", None, None, "b", "b"]
    assert units(plan) == ["b", "b", "v1", "v1", "b", "b"]
    assert units(build_plan(with_groups(None, None), (1, 1), 8)) == ["v0", "v1"]


def test_the_digest_tells_groups_apart_and_an_empty_name_from_none():
    groups = [("a", "a"), ("a", "b"), ("a", None), ("a", ""), (None, None)]
    digests = [plan_digest(build_plan(with_groups(*some), (1, 1), 8)) for some in groups]
    assert len(set(digests)) == len(groups)
