"""What surrounds the driver: progress, side log, and what is left behind by a run that stops."""

from __future__ import annotations

import json

import pytest

from pipeline.config import RunConfig
from pipeline.shards.poison import Isolation
from pipeline.shards.progress import Progress
from pipeline.shards.run import run_job
from pipeline.shards.worker import ShardReport
from pipeline.store.root import Root
from tests.stores import make_config


@pytest.fixture
def root(tmp_path):
    return Root(tmp_path)


def run(root, worker, shards, committed=lambda shard: None):
    progress = Progress(total=10)
    lost = run_job(
        root,
        make_config(),
        RunConfig(data_root="x", max_attempts=2),
        lambda: worker,
        shards,
        progress=progress,
        committed=committed,
    )
    return lost, progress


class Worker:
    """Fails on shard 1, is interrupted on shard 2."""

    def __init__(self, root):
        self.isolation = Isolation(root)

    def run(self, shard, attempt):
        if shard == 1:
            raise OSError("no space left on device")
        if shard == 2:
            self.isolation.touching(shard, [8])
            raise KeyboardInterrupt
        return ShardReport(shard=shard, counts={"ok": 3, "decode_error": 1}, seconds={})

    def close(self):
        pass


def events(root):
    [name] = [name for name in root.names("runs") if name.endswith(".jsonl")]
    return [json.loads(line) for line in root.get(f"runs/{name}").splitlines()]


def test_progress_and_side_log_tell_what_became_of_every_shard(root):
    lost, progress = run(root, Worker(root), [0, 1])
    assert [(loss.shard, loss.attempt) for loss in lost] == [(1, 2)]
    assert (progress.done, progress.failed) == (4, 1)
    told = [(event["event"], event.get("shard")) for event in events(root)]
    assert told == [
        ("began", None), ("committed", 0), ("lost", 1), ("lost", 1), ("ended", None),
    ]  # fmt: skip


def test_a_run_that_is_stopped_blames_no_clip(root):
    with pytest.raises(KeyboardInterrupt):
        run(root, Worker(root), [0, 2])
    assert Isolation(root).learn_from_the_last_run() == []
    assert [event["event"] for event in events(root)] == ["began", "committed", "ended"]


def test_a_run_learns_from_one_that_was_killed(root):
    Isolation(root).touching(0, [3])
    run(root, Worker(root), [0])
    assert Isolation(root).findings(0).deaths == {3: 1}


def test_nothing_to_do_starts_no_worker_and_writes_nothing(root):
    assert run(root, None, [])[0] == []
    assert root.walk() == []
