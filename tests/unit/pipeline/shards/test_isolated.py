"""What is concluded from how a process ended. The deaths are real, the workers are not."""

from __future__ import annotations

import functools
import logging
import os
import signal
import time
from pathlib import Path
from typing import ClassVar

import pytest

from pipeline.config import RunConfig
from pipeline.errors import DriverError, LiteError, ShardError
from pipeline.shards.executor import Attempt
from pipeline.shards.isolated import MAX_BLAMED, MAX_KILLS, IsolatedWorker, _DeathError, _Search

OUTSIDE = {"from_outside": True}


def search(*deaths, **run):
    """The search after some deaths: (clips in work, further arguments)."""
    found = _Search(RunConfig(data_root="x", **run))
    for clips, options in deaths:
        found.learn(_DeathError("it ended", clips, **options))
    return found


def test_a_search_narrows_from_a_batch_to_the_clip():
    found = search(([12, 13], {}))
    assert (found.suspects, found.blamed) == ({12, 13}, set())
    found = search(([12, 13], {}), ([13], {}))
    assert (found.suspects, found.blamed) == ({12, 13}, set())
    found = search(([12, 13], {}), ([13], {}), ([13], {}))
    assert (found.suspects, found.blamed) == ({12, 13}, {13})


def test_a_second_clip_of_the_same_shard_is_found_too():
    found = search(([12, 13], {}), ([13], {}), ([13], {}), ([12], {}), ([12], {}))
    assert found.blamed == {12, 13}


@pytest.mark.parametrize(("deaths", "from_outside"), [(MAX_KILLS, True), (1, False)])
def test_a_start_is_tried_again_after_kills_alone(monkeypatch, deaths, from_outside):
    left = []

    def start(worker):
        if left:
            raise _DeathError(left.pop(), [], from_outside=from_outside)
        worker._child = "alive"
        return {"device": "cpu"}

    monkeypatch.setattr(IsolatedWorker, "_start", start)
    left[:] = [f"death {number}" for number in range(deaths)]
    with pytest.raises(DriverError, match="does not start: death 0"):  # the last of them
        IsolatedWorker(int, RunConfig(data_root="x"))
    assert left == []
    left[:] = ["once more"] * (deaths - 1)
    assert IsolatedWorker(int, RunConfig(data_root="x")).facts == {"device": "cpu"}


@pytest.mark.parametrize("clips", [[], [13], [12, 13]])
def test_no_number_of_kills_from_outside_blames_a_clip(clips):
    found = search(*[(clips, OUTSIDE)] * (MAX_KILLS - 1))
    assert (found.suspects, found.blamed) == (set(), set())
    with pytest.raises(ShardError, match=f"killed from outside {MAX_KILLS} times.*--accept-killed"):
        found.learn(_DeathError("it ended", clips, **OUTSIDE))


def test_kills_count_like_crashes_where_that_is_accepted():
    found = search(([12, 13], OUTSIDE), ([13], OUTSIDE), ([13], OUTSIDE), accept_killed=True)
    assert found.blamed == {13}


def test_crashes_between_two_steps_are_the_shards():
    found = search(([], {}), ([], {}), max_attempts=3)
    assert found.blamed == set()
    with pytest.raises(ShardError, match="died 3 times, at last: it ended"):
        found.learn(_DeathError("it ended", []))


def test_there_is_a_limit_to_what_counts_as_the_clips_doing():
    found = search(*[([clip], {}) for clip in range(MAX_BLAMED) for _ in range(2)], max_attempts=1)
    assert found.blamed == set(range(MAX_BLAMED))
    with pytest.raises(ShardError):
        found.learn(_DeathError("it ended", [99]))


class Mortal:
    """Shard N meets fate N for as long as there are lives left in `folder`; then it works.

    It returns which clips it was told to try alone and to leave out.
    """

    facts: ClassVar = {"device": "none"}

    def __init__(self, folder):
        self.folder = Path(folder)

    def run(self, shard, attempt):
        isolation = attempt.isolation
        isolation.note([shard])
        if lives := sorted(self.folder.iterdir()):
            lives[0].unlink()
            if shard == 3:
                time.sleep(3600)
            if shard == 4:
                os._exit(70)
            if shard == 5:
                raise LiteError("out of luck")
            if shard == 6:
                raise Awkward("two", "arguments")
            os.kill(os.getpid(), [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV][shard])
        isolation.note([])
        return sorted(isolation.suspects), sorted(isolation.blamed), os.getpid(), attempt.number

    def close(self):
        pass


class Awkward(Exception):
    """Cannot be made anew from its arguments."""

    def __init__(self, one, two):
        super().__init__(one)


@pytest.fixture
def start(tmp_path):
    started = []

    def run(lives, make_worker=Mortal, **options):
        for life in range(lives):
            (tmp_path / str(life)).touch()
        make = functools.partial(make_worker, str(tmp_path))
        started.append(IsolatedWorker(make, RunConfig(data_root="x", **options)))
        return started[-1]

    yield run
    for worker in started:
        worker.close()


def test_a_worker_in_a_child_does_what_it_does_elsewhere(start):
    worker = start(0)
    assert worker.facts == {"device": "none"}
    suspects, blamed, pid, number = worker.run(0, Attempt(7))
    assert (suspects, blamed, number) == ([], [], 7)
    assert pid not in (os.getpid(), 0)
    assert worker.run(1, Attempt())[2] == pid, "one child for all shards"
    worker.close()
    assert not Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize("shard", [0, 1], ids=["SIGKILL", "SIGTERM"])
def test_kills_from_outside_begin_anew_and_blame_nobody(start, shard, caplog):
    assert start(3).run(shard, Attempt())[:2] == ([], [])
    assert caplog.text.count(f"with clip {shard} in work") == 3


@pytest.mark.parametrize("shard", [2, 4], ids=["SIGSEGV", "exit"])
def test_a_clip_that_crashes_twice_alone_is_left_out(start, shard):
    assert start(2).run(shard, Attempt())[:2] == ([], [shard])


def test_a_clip_that_hangs_is_like_one_that_crashes(start):
    worker = start(2, workers=1, shard_timeout_s=2.0)
    assert worker.run(3, Attempt())[:2] == ([], [3])


def test_what_a_worker_raises_passes_through(start):
    worker = start(2)
    with pytest.raises(LiteError, match="out of luck"):
        worker.run(5, Attempt())
    with pytest.raises(RuntimeError, match="Awkward: two|Awkward: one|Awkward"):
        worker.run(6, Attempt())
    assert worker.run(6, Attempt())[:2] == ([], [])


class Unstartable:
    def __init__(self, folder):
        lives = sorted(Path(folder).iterdir())
        if not lives:
            raise LiteError("no such checkpoint")
        lives[0].unlink()
        os.kill(os.getpid(), signal.SIGKILL if len(lives) > 1 else signal.SIGSEGV)


def test_a_worker_killed_while_it_loads_is_started_again_and_one_that_crashes_is_not(start):
    with pytest.raises(DriverError, match="does not start: it ended by signal SIGSEGV"):
        start(2, Unstartable)
    with pytest.raises(LiteError, match="no such checkpoint"):
        start(0, Unstartable)


class Chatty(Mortal):
    def run(self, shard, attempt):
        os.write(1, b"what a library prints")
        logging.getLogger("pipeline.oracle.scorer").warning("shard %d was tight", shard)
        return shard


def test_what_a_child_prints_is_no_answer_and_what_it_warns_of_is_passed_on(start, caplog):
    assert start(0, Chatty).run(8, Attempt()) == 8
    assert "shard 8 was tight" in caplog.text


def test_a_child_ends_with_its_parent(tmp_path):
    """However that ends, and in the middle of a step."""
    (tmp_path / "0").touch()  # shard 3 then sleeps for an hour
    reading, writing = os.pipe()
    parent = os.fork()
    if parent == 0:
        worker = IsolatedWorker(
            functools.partial(Mortal, str(tmp_path)), RunConfig(data_root="x", workers=1)
        )
        os.write(writing, str(worker._child.pid).encode())
        worker.run(3, Attempt())
        os._exit(0)
    child = int(os.read(reading, 20))
    while list(tmp_path.iterdir()):
        time.sleep(0.05)
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    deadline = time.monotonic() + 30
    while Path(f"/proc/{child}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
