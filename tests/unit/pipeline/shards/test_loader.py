"""What a worker is given to compute, before and after deaths."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline.backbones import load_backbone
from pipeline.decode import check_decoder
from pipeline.errors import ConfigError, UnfitWorkerError
from pipeline.shards import loader as loader_module
from pipeline.shards.loader import NUM_KNOWN, ClipLoader, find_known_videos, unreadable
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
def loader(data, tiny_backbone):
    backbone = load_backbone(str(tiny_backbone))
    made = ClipLoader(make_config(), make_run_config(data, batch_size=3), backbone)
    yield made
    made.close()


@pytest.fixture
def take(loader, plan):
    """The batches of an attempt, and the positions that failed with their statuses."""

    def attempt(wanted=range(NUM_VIDEOS), **options):
        failed = {}
        batches = loader.batches(
            plan, wanted, lambda position, error: failed.update({position: error.status}), **options
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


def test_what_is_not_wanted_is_not_there(take):
    batches, failed = take(wanted=[3])
    assert clips_in(batches) == [[3]]
    assert failed == {}


def test_an_isolated_attempt_never_decodes_in_the_worker(loader, take, monkeypatch):
    """A decoder may be what crashes it."""

    class Elsewhere:
        def imap(self, requests, look_ahead):
            raise RuntimeError("in another process")

    monkeypatch.setattr(loader, "_safe_pool", Elsewhere())
    take()
    with pytest.raises(RuntimeError, match="in another process"):
        take(isolated=True)


def test_a_machine_whose_decoder_cannot_work_gets_no_clips(data, tiny_backbone, monkeypatch):
    """A worker may run elsewhere than the command that looked first."""

    def no_library(request):
        raise RuntimeError("no such library here")

    check_decoder.cache_clear()
    monkeypatch.setattr("pipeline.decode.pyav.decode", no_library)
    with pytest.raises(ConfigError, match="does not work here.*no such library here"):
        ClipLoader(make_config(), make_run_config(data), load_backbone(str(tiny_backbone)))


def test_known_videos_are_some_that_can_be_read(data):
    paths = [f"v{number:03d}.mp4" for number in range(NUM_VIDEOS)]
    assert find_known_videos(str(data), paths[3:]) == (
        str(data / "v003.mp4"),
        str(data / "v005.mp4"),
    )
    assert find_known_videos(str(data), ["v004.mp4"]) == ()
    assert len(find_known_videos(str(data), paths)) == NUM_KNOWN


def test_no_more_than_a_few_files_are_opened_to_find_them(tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr(loader_module, "unreadable", lambda path: opened.append(path) or "gone")
    assert find_known_videos("/data", [f"{number}.mp4" for number in range(100_000)]) == ()
    assert len(opened) <= 65
    assert opened[0] == "/data/0.mp4"
    assert int(Path(opened[-1]).stem) > 98_000, "they lie evenly"


def test_a_worker_that_cannot_read_what_the_run_could_is_unfit(data, tiny_backbone, tmp_path):
    backbone = load_backbone(str(tiny_backbone))
    known = (str(data / "v000.mp4"), str(tmp_path / "gone.mp4"))
    with pytest.raises(UnfitWorkerError, match=r"gone.mp4, which this run could read.*mounted"):
        ClipLoader(make_config(), make_run_config(data, known_videos=known), backbone)
    accepting = make_run_config(data, known_videos=known, accept_missing=True)
    ClipLoader(make_config(), accepting, backbone).close()


@pytest.mark.parametrize("kind", ["missing", "folder", "pipe", "NUL"])
def test_what_cannot_be_read(tmp_path, kind):
    path = tmp_path / "video.mp4"
    if kind == "folder":
        path.mkdir()
    if kind == "pipe":
        os.mkfifo(path)
        assert unreadable(str(path)) is None, "it does not wait for a writer"
        return
    assert unreadable("a\0b" if kind == "NUL" else str(path))


def test_a_file_that_can_be_read(data):
    assert unreadable(str(data / "v000.mp4")) is None
