"""The model's process: however it ends, it is replaced, and what was in work is known lost."""

from __future__ import annotations

import os
import signal
import time

import numpy as np
import pytest

from pipeline.decode.process import ChildProcess
from pipeline.errors import ConfigError, DriverError
from selector.serving import process
from selector.serving.process import ModelLostError, ModelProcess


@pytest.fixture(autouse=True)
def obedient(monkeypatch):
    monkeypatch.setattr(process, "ChildProcess", lambda _: ChildProcess("tests.obedient_child"))


@pytest.fixture
def model():
    restarts = []
    model = ModelProcess("serve", 1.0, lambda: restarts.append(1))
    model.restarts = restarts
    yield model
    model.close()
    assert not model.is_ready


def is_there(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_it_answers_each_batch_in_one_process(model):
    pid = model.facts["pid"]
    assert model.is_ready
    assert [future.result() for future in [model.submit("a"), model.submit("bc")]] == [
        [pid], [pid, pid],
    ]  # fmt: skip
    model.close()
    assert not is_there(pid)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("kill", "ended by signal SIGKILL"),
        ("crash", "ended by signal SIGABRT"),
        ("hang", "ended without an answer within 1 s"),
    ],
)
def test_a_process_that_is_lost_says_so_and_the_next_batch_has_another(model, how, said):
    pid = model.facts["pid"]
    lost = model.submit(["hang" if how == "kill" else how])
    if how == "kill":
        time.sleep(0.2)
        os.kill(pid, signal.SIGKILL)
    with pytest.raises(ModelLostError, match=said):
        lost.result(20)
    assert not model.is_ready
    (other,) = model.submit(["a"]).result(20)
    assert other == model.facts["pid"] != pid
    assert len(model.restarts) == 1
    assert not is_there(pid)


def test_a_process_that_no_longer_reads_is_lost_too(model):
    model.submit(["stop"]).result(20)
    large = np.zeros(1 << 20, np.uint8)  # more than a pipe holds
    with pytest.raises(ModelLostError, match="without an answer within 1 s"):
        model.submit([large]).result(20)
    assert len(model.submit(["a"]).result(20)) == 1


def test_a_process_that_died_in_idle_time_is_replaced_before_anybody_asks(model):
    os.kill(model.facts["pid"], signal.SIGKILL)
    while model.is_ready:
        time.sleep(0.01)
    model.revive().result(20)
    assert model.is_ready
    assert len(model.restarts) == 1
    model.revive().result(20)
    assert len(model.restarts) == 1


def test_a_spare_takes_the_place_of_one_that_dies_and_gets_a_spare_itself():
    model = ModelProcess("serve", 1.0, keep_spare=True)
    first, spare = model.facts["pid"], model._spare.pid
    os.kill(first, signal.SIGKILL)
    while model.is_ready:
        time.sleep(0.01)
    assert model.submit(["a"]).result(20) == [spare]
    # One that died in the meantime is not handed a batch.
    dead = model._spare
    for pid in (spare, dead.pid):
        os.kill(pid, signal.SIGKILL)
    while model.is_ready or dead.is_running:
        time.sleep(0.01)
    (third,) = model.submit(["a"]).result(20)
    assert third not in (first, spare, dead.pid)
    last = model._spare.pid
    model.close()
    assert not any(map(is_there, (first, spare, dead.pid, third, last)))


def test_what_the_model_says_at_its_start_is_raised():
    with pytest.raises(ConfigError, match="no such model"):
        ModelProcess("refuse", 1.0)
    with pytest.raises(DriverError, match="does not start: it ended with exit code 3"):
        ModelProcess("die", 1.0)
