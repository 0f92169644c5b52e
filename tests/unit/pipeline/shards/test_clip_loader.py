"""What a worker is given to compute, before and after deaths."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.backbones import load_backbone
from pipeline.decode import check_decoder
from pipeline.errors import ConfigError
from pipeline.shards.loader import ClipLoader
from pipeline.shards.poison import Findings, Guard, Isolation
from pipeline.store.root import Root
from tests.builds import make_dataset, make_run_config
from tests.stores import make_config

NUM_VIDEOS = 6


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("data"), NUM_VIDEOS, missing=(4,))


@pytest.fixture(scope="module")
def plan():
    return {
        "clip_id": [10 + number for number in range(NUM_VIDEOS)],
        "video_id": [f"v{number:03d}" for number in range(NUM_VIDEOS)],
        "path": [f"v{number:03d}.mp4" for number in range(NUM_VIDEOS)],
        "segment": [0] * NUM_VIDEOS,
        "crop": [0] * NUM_VIDEOS,
    }


@pytest.fixture
def feed(data, tiny_backbone):
    backbone = load_backbone(str(tiny_backbone))
    made = ClipLoader(make_config(), make_run_config(data, batch_size=3), backbone)
    yield made
    made.close()


@pytest.fixture
def take(tmp_path, feed, plan):
    """The batches of an attempt, and the positions that failed with their statuses."""

    def attempt(findings=None, *, wanted=range(NUM_VIDEOS), cautious=False):
        guard = Guard(
            Isolation(Root(tmp_path)), 0, plan["clip_id"], findings or Findings(), cautious
        )
        failed = {}
        batches = feed.batches(
            plan, wanted, guard, lambda position, error: failed.update({position: error.status})
        )
        return list(batches), failed

    return attempt


def clips_in(batches):
    return [[p for p in b.positions if b.clips[p - b.start].any()] for b in batches]


def test_clips_come_in_batches_cut_by_position_and_failures_leave_black_slots(take):
    batches, failed = take()
    assert [list(batch.positions) for batch in batches] == [[0, 1, 2], [3, 4, 5]]
    assert clips_in(batches) == [[0, 1, 2], [3, 5]]
    assert failed == {4: "missing_file"}


def test_suspects_come_alone_in_their_batchs_shape_with_the_same_pixels(take):
    [whole, _], _ = take()
    batches, _ = take(Findings(frozenset({11, 12})))
    assert clips_in(batches) == [[0], [1], [2], [3, 5]]
    for batch in batches[:3]:
        assert batch.positions == whole.positions
        [position] = batch.facts
        np.testing.assert_array_equal(batch.clips[position], whole.clips[position])


def test_culprits_are_left_out_and_fail(take):
    batches, failed = take(Findings(frozenset({11, 12}), {11: 2, 12: 1}))
    assert clips_in(batches) == [[0], [2], [3, 5]]
    assert failed == {1: "worker_died", 4: "missing_file"}


def test_a_culprit_that_is_not_wanted_does_not_fail(take):
    batches, failed = take(Findings(deaths={11: 2}), wanted=[3])
    assert clips_in(batches) == [[3]]
    assert failed == {}


def test_a_cautious_attempt_never_decodes_in_the_worker(feed, take, monkeypatch):
    """The decoder may have been what killed it."""

    class Elsewhere:
        def imap(self, requests, look_ahead):
            raise RuntimeError("in another process")

    monkeypatch.setattr(feed, "_safe_pool", Elsewhere())
    take()
    with pytest.raises(RuntimeError, match="in another process"):
        take(cautious=True)


def test_a_machine_whose_decoder_cannot_work_gets_no_clips(data, tiny_backbone, monkeypatch):
    """A worker may run elsewhere than the command that looked first."""

    def no_library(request):
        raise RuntimeError("no such library here")

    check_decoder.cache_clear()
    monkeypatch.setattr("pipeline.decode.pyav.decode", no_library)
    with pytest.raises(ConfigError, match="does not work here.*no such library here"):
        ClipLoader(make_config(), make_run_config(data), load_backbone(str(tiny_backbone)))
