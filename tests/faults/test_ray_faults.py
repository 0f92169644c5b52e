"""Real signals to real Ray workers; whatever happens, the bytes are those of a serial build.

Every replacement worker costs seconds of imports, so one test lets several things go wrong.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import ClassVar

import pytest

from pipeline.config import RunConfig
from pipeline.errors import DriverError
from pipeline.shards.executor import Attempt
from pipeline.shards.run import run_shards, settle_ray_env
from pipeline.store.reader import open_store
from pipeline.store.verify import verify_store
from tests.builds import file_hashes, run_build
from tests.evaluations import run_evaluation
from tests.faults.chaos import ALWAYS, Order, chaos, count
from tests.faults.poison import check_that_only_it_failed, poisoned

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module", autouse=True)
def _ray() -> Iterator[None]:
    """One local Ray for the module; the executor leaves a Ray alone that it has not started."""
    settle_ray_env(None)
    import ray

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_worker_niceness", "0")  # Ray's 15 starves workers on a busy machine
        ray.init(
            address="local",
            num_cpus=4,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="error",
            object_store_memory=100 << 20,
        )
    yield
    ray.shutdown()


def test_two_workers_give_the_bytes_of_a_serial_run(tmp_path, data, tiny_backbone, undisturbed):
    result = run_build(tmp_path / "store", data, tiny_backbone, run={"workers": 2})
    assert result.complete
    assert file_hashes(tmp_path / "store") == undisturbed


def test_workers_that_die_mid_shard_mid_write_and_after_the_commit_cost_nothing(
    tmp_path, data, tiny_backbone, undisturbed
):
    store, folder = tmp_path / "store", tmp_path / "chaos"
    orders = (
        Order("score", shard=0),
        Order("rename:cam/c.1", shard=1),
        Order("rename:clips/shard-00001", shard=1),
        Order("end", shard=2),
    )
    result = run_build(
        store, data, tiny_backbone, run={"workers": 2}, worker_class=chaos(folder, *orders)
    )
    assert count(folder) == 4
    assert result.complete
    assert result.given_up == []
    assert file_hashes(store) == undisturbed
    assert verify_store(str(store)) == []


def test_a_worker_that_hangs_is_killed_and_its_shard_done_by_another(
    tmp_path, data, tiny_backbone, undisturbed
):
    store, folder = tmp_path / "store", tmp_path / "chaos"
    result = run_build(
        store,
        data,
        tiny_backbone,
        run={"workers": 1, "shard_timeout_s": 20.0},
        worker_class=chaos(folder, Order("score", shard=1, act="hang")),
    )
    assert count(folder) == 1
    assert result.complete
    assert file_hashes(store) == undisturbed


def test_a_clip_that_crashes_its_worker_every_time_becomes_a_row(tmp_path, data, tiny_backbone):
    store, folder = tmp_path / "store", tmp_path / "chaos"
    result = run_build(
        store,
        data,
        tiny_backbone,
        run={"workers": 1, "max_attempts": 1},
        worker_class=chaos(folder, Order("clip:6", act="crash", times=ALWAYS)),
    )
    assert result.given_up == []
    assert result.summary == {"ok": 8, "missing_file": 1, "worker_died": 1, "pending": 0}
    clips = open_store(store).clips(status="worker_died")
    assert clips["video_id"].tolist() == ["v006"]
    assert verify_store(str(store)) == []


@pytest.mark.slow
def test_a_clip_that_crashes_its_evaluator_every_time_becomes_rows(
    tmp_path, data, tiny_backbone, undisturbed_evaluation
):
    result = run_evaluation(
        tmp_path,
        data,
        tiny_backbone,
        run={"workers": 1, "max_attempts": 1},
        options={"worker_class": poisoned(6)},
    )
    assert result.given_up == []
    check_that_only_it_failed(tmp_path, undisturbed_evaluation, 6)


@pytest.mark.slow
def test_a_worker_killed_nine_times_on_one_clip_blames_nobody(
    tmp_path, data, tiny_backbone, undisturbed
):
    store, folder = tmp_path / "store", tmp_path / "chaos"
    result = run_build(
        store,
        data,
        tiny_backbone,
        run={"workers": 2, "max_attempts": 1},
        worker_class=chaos(folder, Order("clip:6", times=9)),
    )
    assert count(folder) == 9
    assert result.complete
    assert file_hashes(store) == undisturbed


def test_a_shard_that_cannot_be_done_is_given_up_alone_and_done_by_the_next_run(
    tmp_path, data, tiny_backbone, undisturbed
):
    store, folder = tmp_path / "store", tmp_path / "chaos"
    result = run_build(
        store,
        data,
        tiny_backbone,
        run={"workers": 1, "max_attempts": 2},
        worker_class=chaos(folder, Order("commit", shard=1, act="raise", times=2)),
    )
    assert [(loss.shard, loss.attempt) for loss in result.given_up] == [(1, 2)]
    assert "odd input" in result.given_up[0].reason
    assert not result.complete
    assert open_store(store).shards() == [0, 2]
    assert run_build(store, data, tiny_backbone).complete
    assert file_hashes(store) == undisturbed


class Warner:
    """Warns of every shard it runs."""

    facts: ClassVar[dict[str, str]] = {}

    def run(self, shard: int, attempt: Attempt) -> int:
        logging.getLogger("pipeline.oracle.scorer").warning("shard %d was tight", shard)
        return shard

    def close(self) -> None:
        pass


def test_what_a_worker_warns_of_reaches_the_driver(caplog):
    reports: list[int] = []
    run_shards(Warner, [3, 4], RunConfig(data_root="x", workers=1), reports.append)
    assert sorted(reports) == [3, 4]
    assert "shard 3 was tight" in caplog.text
    assert "shard 4 was tight" in caplog.text


def test_a_gpu_that_the_cluster_lacks_is_refused_at_once(tmp_path, data, tiny_backbone):
    with pytest.raises(DriverError, match=r"1 worker\(s\) with 1 GPU\(s\) each do not fit"):
        run_build(
            tmp_path / "store", data, tiny_backbone, run={"workers": 1, "gpus_per_worker": 1.0}
        )


def test_a_checkpoint_that_a_worker_cannot_load_is_named(tmp_path, data, tiny_backbone, caplog):
    def broken(*args: object) -> None:
        raise OSError("chaos: no such device")

    with pytest.raises(DriverError, match="workers fail to start.*no such device"):
        run_build(tmp_path / "store", data, tiny_backbone, run={"workers": 1}, worker_class=broken)
