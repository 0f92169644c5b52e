"""Who trains and who judges: whole groups where the store has them, else videos."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from pipeline.errors import ConfigError
from selector.training.config import TrainedOn
from selector.training.split import HELD_OUT, TRAIN, may_have_trained, split_store
from tests.stores import make_store

FRACTION = 0.3
VIDEOS = [f"video{i:04d}" for i in range(120)]
GROUPS = [None if i % 10 == 9 else f"source{i * 7 % 23}" for i in range(120)]
"""Of 120 videos: 23 groups that lie scattered over the shards, and twelve videos of none."""


def is_low(name: str) -> bool:
    """The rule of the first release, spelt out."""
    digest = hashlib.sha256(b"held out" + name.encode()).hexdigest()
    return int(digest[:16], 16) / 2**64 < FRACTION


def roles(store) -> np.ndarray:
    split = split_store(store, FRACTION)
    return np.concatenate([split.roles[shard] for shard in store.shards()])


@pytest.fixture(scope="module")
def grouped(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("grouped") / "s", 120, shard_size=16, groups=GROUPS)


def test_no_group_is_on_both_sides(grouped):
    found = roles(grouped)
    sides = {g: {r for r, other in zip(found, GROUPS, strict=True) if other == g} for g in GROUPS}
    del sides[None]
    assert len(sides) == 23
    assert all(len(side) == 1 for side in sides.values())
    assert {TRAIN} in sides.values()
    assert {HELD_OUT} in sides.values()
    names = [group or video for group, video in zip(GROUPS, VIDEOS, strict=True)]
    assert found.tolist() == [HELD_OUT if is_low(name) else TRAIN for name in names]


def test_without_groups_the_split_is_by_video_as_it_always_was(tmp_path):
    found = roles(make_store(tmp_path / "s", 120, shard_size=16))
    assert found.tolist() == [HELD_OUT if is_low(video) else TRAIN for video in VIDEOS]


def test_one_group_alone_cannot_be_split(tmp_path):
    store = make_store(tmp_path / "s", groups=["one"] * 10)
    with pytest.raises(ConfigError, match="of the groups of the videos"):
        split_store(store, FRACTION)


@pytest.mark.parametrize("by_group", [False, True])
def test_what_trained_a_selector_is_known_by_what_it_held_out(by_group):
    trained_on = TrainedOn(
        dataset="d", split="train", plan_digest="", sampling="uniform", num_segments=1,
        num_crops=1, held_out=FRACTION, by_group=by_group,
    )  # fmt: skip
    videos, groups = (np.array(names, np.object_) for names in (VIDEOS, [g or "" for g in GROUPS]))
    found = may_have_trained(trained_on, "d", "train", videos, groups)
    assert found.tolist() == [not is_low(name) for name in (groups if by_group else videos)]
    # Nobody can tell which videos were together once the dataset's groups are gone.
    unknown = may_have_trained(trained_on, "d", "train", videos, None)
    assert unknown.tolist() == [by_group or not is_low(video) for video in videos]
    assert not may_have_trained(trained_on, "d", "test", videos, groups).any()
