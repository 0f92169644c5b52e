"""What surrounds the driver: progress, side log, and what is left behind by a run that stops."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import ClassVar

import pytest

from pipeline.config import RunConfig
from pipeline.errors import NoReadableVideoError
from pipeline.shards import serial_executor
from pipeline.shards.progress import Progress
from pipeline.shards.run import run_job
from pipeline.shards.worker import ShardReport
from pipeline.store.root import Root
from tests.stores import make_config


@pytest.fixture
def root(tmp_path):
    return Root(tmp_path)


def run(root, worker, shards, committed=lambda shard: None, **options):
    progress = Progress(total=10)
    lost = run_job(
        root,
        make_config(),
        RunConfig(data_root="x", max_attempts=2),
        lambda: worker,
        shards,
        progress=progress,
        committed=committed,
        **options,
    )
    return lost, progress


def report(shard, ok=3):
    counts = {"ok": ok, "decode_error": 4 - ok}
    return ShardReport(shard=shard, counts=counts, seconds={}, num_worked=ok, batch_size=16)


class Worker:
    """Fails on shard 1, is interrupted on shard 2."""

    facts: ClassVar = {"device": "cpu", "batch_size": 16}

    def run(self, shard, attempt):
        if shard == 1:
            raise RuntimeError("odd input")
        if shard == 2:
            raise KeyboardInterrupt
        return report(shard)

    def close(self):
        pass


def events(root):
    [name] = [name for name in root.names("runs") if name.endswith(".jsonl")]
    return [json.loads(line) for line in root.get(f"runs/{name}").splitlines()]


def test_progress_and_side_log_tell_what_became_of_every_shard(root):
    lost, progress = run(root, Worker(), [0, 1])
    assert [(loss.shard, loss.attempt) for loss in lost] == [(1, 2)]
    assert (progress.done, progress.failed) == (4, 1)
    told = [(event["event"], event.get("shard")) for event in events(root)]
    assert told[:3] == [("began", None), ("worker", None), ("committed", 0)]
    assert told[3:] == [("lost", 1), ("lost", 1), ("ended", None)]
    assert events(root)[1]["device"] == "cpu"
    assert events(root)[2]["batch_size"] == 16


def test_a_run_that_is_stopped_leaves_nothing_in_work(root):
    with pytest.raises(KeyboardInterrupt):
        run(root, Worker(), [0, 2])
    assert not root.exists("runs/in-work.json")
    assert [event["event"] for event in events(root)] == ["began", "worker", "committed", "ended"]


def test_a_shard_that_killed_two_runs_gets_a_process_of_its_own(root, monkeypatch):
    isolated = []

    class Elsewhere(Worker):
        def __init__(self, make_worker, run_config):
            pass

        def run(self, shard, attempt):
            isolated.append(shard)
            return report(shard)

    monkeypatch.setattr(serial_executor, "IsolatedWorker", Elsewhere)
    root.put("runs/in-work.json", b"[3, 3, 4, 9]")
    _, progress = run(root, Worker(), [0, 3, 4])
    assert isolated == [3]
    assert progress.done == 12
    assert not root.exists("runs/in-work.json")


def test_nothing_to_do_starts_no_worker_and_writes_nothing(root):
    assert run(root, None, [])[0] == []
    assert root.walk() == []


def test_nothing_to_do_forgets_what_a_killed_run_had_committed(root):
    root.put("runs/in-work.json", b"[3]")
    run(root, None, [])
    assert root.walk() == []


def test_a_worker_on_another_device_is_warned_of_once(root, caplog):
    run(root, Worker(), [0])
    assert caplog.text == ""
    worker = Worker()
    worker.facts = {"device": "H100", "batch_size": 8}
    run(root, worker, [3, 4])
    assert caplog.text.count("device cpu -> H100, batch_size 16 -> 8") == 1
    assert "last bits" in caplog.text


def test_a_batch_that_was_halved_is_warned_of(root, caplog):
    class Halved(Worker):
        def run(self, shard, attempt):
            return replace(report(shard), batch_size=8)

    run(root, Halved(), [0, 3])
    assert caplog.text.count("batch_size 16 -> 8") == 1


def test_a_shard_of_failures_is_settled_by_one_that_an_earlier_run_committed(root):
    asked = []

    class Doubtful(Worker):
        def run(self, shard, attempt):
            asked.append((shard, attempt.final, attempt.dry_run))
            if shard == 0 and not attempt.final:
                raise NoReadableVideoError("not one video of shard 0")
            return report(shard, ok=0 if shard == 0 else 3)

    counts = {5: {"missing_file": 4}, 6: {"ok": 1, "missing_file": 3}}
    _, progress = run(root, Doubtful(), [0], committed=counts.get, all_committed=lambda: {6, 5})
    assert asked == [(0, False, False), (0, False, False), (6, False, True), (0, True, False)]
    assert (progress.done, progress.failed) == (4, 4)


def test_clips_that_took_too_long_are_tried_once_more_when_all_else_is_done(root):
    class Slow(Worker):
        def __init__(self, name, status):
            self.name, self.status = name, status

        def run(self, shard, attempt):
            told.append((self.name, shard))
            failed = self.status if shard in (0, 4) else "too_short"
            return replace(report(shard), counts={"ok": 3, failed: 1})

    told: list = []
    first, second = Slow("first", "decode_timeout"), Slow("second", "ok")
    _, progress = run(root, first, [0, 3, 4], second_worker=lambda: second)
    assert told == [("first", 0), ("first", 3), ("first", 4), ("second", 0), ("second", 4)]
    assert progress.done == 12
    assert [e["shard"] for e in events(root) if e["event"] == "tried again"] == [0, 4]
