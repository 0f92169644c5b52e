"""What a run keeps beside the committed files, and what the next one makes of it."""

from __future__ import annotations

import errno
import json
import logging

import pytest

from pipeline.config import RunConfig
from pipeline.shards.side_files import Numerics, RunLog, ShardsInWork
from pipeline.store.root import Root
from tests.stores import make_config


@pytest.fixture
def root(tmp_path):
    return Root(tmp_path)


def killed_at(root, shards, *begun):
    in_work = ShardsInWork(root, shards)
    for shard in begun:
        in_work.begin(shard)


def test_a_kill_is_one_loss_of_the_shard_that_was_in_work(root):
    killed_at(root, range(9), 0, 1, 2)
    assert ShardsInWork(root, range(9)).losses == {2: 1}
    killed_at(root, range(9), 5)
    assert ShardsInWork(root, range(9)).losses == {2: 1, 5: 1}
    killed_at(root, range(9), 2)
    assert ShardsInWork(root, range(9)).losses == {2: 2, 5: 1}


def test_a_shard_that_is_committed_is_forgotten(root):
    killed_at(root, range(9), 2)
    in_work = ShardsInWork(root, range(9))
    in_work.begin(2)
    in_work.committed(2)
    in_work.begin(3)
    assert ShardsInWork(root, range(9)).losses == {3: 1}


def test_what_is_no_longer_to_be_done_is_forgotten(root):
    killed_at(root, range(9), 2)
    in_work = ShardsInWork(root, [3])
    assert in_work.losses == {}
    in_work.end()
    assert root.walk() == []


def test_a_run_that_ends_by_itself_adds_no_loss(root):
    killed_at(root, range(9), 2)
    in_work = ShardsInWork(root, range(9))
    in_work.begin(4)
    in_work.end()
    assert ShardsInWork(root, range(9)).losses == {2: 1}


def test_the_first_facts_are_kept_and_others_told_from_them(root, caplog):
    Numerics(root).compare({"device": "cpu", "batch_size": 16})
    Numerics(root).compare({"device": "cpu", "batch_size": 16})
    assert caplog.text == ""
    numerics = Numerics(root)
    for _ in range(3):
        numerics.compare({"device": "H100", "batch_size": 16})
    assert caplog.text.count("device cpu -> H100") == 1
    assert "batch_size" not in caplog.text
    assert json.loads(root.get("runs/numerics.json")) == {"device": "cpu", "batch_size": 16}


def test_a_side_log_that_cannot_be_written_stops_nothing(root, monkeypatch, caplog):
    log = RunLog(root, make_config(), RunConfig(data_root="x"))

    def full(rel, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(root, "put", full)
    with caplog.at_level(logging.WARNING):
        log.close()
    assert "side log cannot be written" in caplog.text
