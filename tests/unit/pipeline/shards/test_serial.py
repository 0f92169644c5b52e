"""The in-process executor: same rules, no Ray, signals that end it in order."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import ClassVar

import pytest

from pipeline.config import RunConfig
from pipeline.errors import ConfigError
from pipeline.shards.run import run_shards, sigterm_exits

RUN = RunConfig(data_root="unused", max_attempts=2)


class Doubler:
    """Returns twice the shard number; raises on shard 3."""

    closed = 0
    facts: ClassVar[dict] = {}

    def run(self, shard, attempt):
        if shard == 3:
            raise RuntimeError("three is bad")
        return shard * 2

    def close(self):
        type(self).closed += 1


def test_reports_arrive_in_order_and_failures_are_returned():
    Doubler.closed = 0
    reports: list[int] = []
    losses = []
    given_up = run_shards(Doubler, [4, 3, 2], RUN, reports.append, on_loss=losses.append)
    assert reports == [8, 4]
    assert [(loss.shard, loss.given_up) for loss in losses] == [(3, False), (3, True)]
    assert [loss.reason for loss in given_up] == ["RuntimeError: three is bad"]
    assert Doubler.closed == 1


def test_no_shards_builds_no_worker():
    def explode():
        raise AssertionError

    assert run_shards(explode, [], RUN, print) == []


def test_a_shard_timeout_is_refused_without_a_process_to_kill():
    with pytest.raises(ConfigError, match="--workers 1"):
        run_shards(Doubler, [1], RunConfig(data_root="x", shard_timeout_s=1.0), print)


def test_the_serial_path_never_imports_ray():
    code = (
        "import sys\n"
        "from pipeline.config import RunConfig\n"
        "from pipeline.shards.run import run_shards\n"
        "class W:\n"
        "    facts = {}\n"
        "    def run(self, shard, attempt): return shard\n"
        "    def close(self): pass\n"
        "run_shards(W, [1, 2], RunConfig(data_root='x'), lambda report: None)\n"
        "assert 'ray' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_sigterm_closes_the_worker_and_leaves_with_143():
    Doubler.closed = 0

    class Terminated(Doubler):
        def run(self, shard, attempt):
            os.kill(os.getpid(), signal.SIGTERM)
            return super().run(shard, attempt)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as leaving:
        run_shards(Terminated, [1], RUN, print)
    assert leaving.value.code == 143
    assert Terminated.closed == 1
    assert signal.getsignal(signal.SIGTERM) == before


def test_outside_the_main_thread_signals_are_left_alone():
    import threading

    before = signal.getsignal(signal.SIGTERM)
    seen = []

    def body():
        with sigterm_exits():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert seen == [before]
