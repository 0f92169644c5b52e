"""A simulated run against what can be worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.errors import ConfigError, DriverError
from pipeline.estimate.simulate import Cluster, Forecast, simulate
from pipeline.estimate.worker import Rates, WorkerSetup


def run(
    clips: int,
    shard_size: int,
    *,
    decode: float = 0.0,
    model: float = 0.0,
    decoders: int = 1,
    batch_size: int = 8,
    cluster: dict[str, Any] | None = None,
    setup: dict[str, Any] | None = None,
    **rates: Any,
) -> Forecast:
    return simulate(
        clips,
        shard_size,
        WorkerSetup(decoders=decoders, batch_size=batch_size, **(setup or {})),
        Cluster(**(cluster or {})),
        Rates(decode_s=(decode,), model_s=model, **rates),
    )


def test_one_worker_without_decoders_takes_the_sum_of_all_times() -> None:
    found = run(
        100, 32, decode=0.5, model=0.25, decoders=0,
        start_s=7, assemble_s=0.125, write_s=0.0625, commit_s=3, driver_s=0.5,
    )  # fmt: skip
    # 4 shards; the driver also takes its time for the worker's start.
    assert found.seconds == pytest.approx(
        7 + 0.5 + 100 * (0.5 + 0.25 + 0.125 + 0.0625) + 4 * (3 + 0.5)
    )
    assert found.busy["decode"] == pytest.approx(50 / found.seconds)
    assert [commit.num_clips for commit in found.commits] == [32, 32, 32, 4]


@pytest.mark.parametrize("decoders", [1, 4])
def test_bound_by_decoding_it_is_as_fast_as_the_decoders(decoders: int) -> None:
    found = run(4096, 64, decode=1.0, model=0.001, decoders=decoders, cluster={"workers": 1})
    assert found.steady_clips_per_s == pytest.approx(decoders, rel=0.02)
    assert found.bound_by == "decode"


def test_bound_by_the_model_it_is_as_fast_as_the_models() -> None:
    found = run(
        8192, 64, decode=0.1, model=1.0, decoders=2,
        setup={"on_gpu": True}, cluster={"workers": 3}, write_s=0.3,
    )  # fmt: skip
    assert found.clips_per_s == pytest.approx(3, rel=0.03)  # writing is beside it
    assert found.bound_by == "model"


def test_in_one_process_the_decoders_rest_while_a_shard_is_written() -> None:
    # Two batches a shard. Decoded ahead of the first: all; so 16 s of decoding, the model's last
    # batch of 8 s (the first hides behind decoding), and 4 s of writing.
    found = run(160, 16, decode=1.0, model=1.0, decoders=1, write_s=0.25)
    assert found.seconds == pytest.approx(10 * (16 + 8 + 4))


def test_the_last_shards_leave_workers_idle() -> None:
    even = run(64, 16, decode=0.0, model=1.0, cluster={"workers": 4})
    odd = run(80, 16, decode=0.0, model=1.0, cluster={"workers": 4})
    assert (even.seconds, odd.seconds) == pytest.approx((16, 32))


def test_cores_that_are_too_few_are_shared() -> None:
    # 4 models of one thread on 2 cores.
    found = run(64, 16, model=1.0, cluster={"workers": 4, "cores_per_node": 2})
    assert found.seconds == pytest.approx(32)


def test_each_node_has_its_own_cores() -> None:
    cluster = {"workers": 4, "nodes": 2, "cores_per_node": 2}
    assert run(64, 16, model=1.0, cluster=cluster).seconds == pytest.approx(16)


def test_all_write_into_one_store() -> None:
    # 64 clips of 1 MB through 2 MB/s.
    setup = {"clip_bytes": 1e6, "on_gpu": True}
    found = run(64, 4, setup=setup, cluster={"workers": 8, "store_bytes_s": 2e6})
    assert found.seconds == pytest.approx(32)
    assert found.bound_by == "store"


def test_a_worker_whose_two_shards_are_both_being_written_waits() -> None:
    # A shard takes the model 1 s and its commit 4 s; two may be in work: two shards in 1 + 4 s.
    setup = {"on_gpu": True}
    found = run(1600, 8, model=0.125, setup=setup, cluster={"workers": 1}, commit_s=4)
    assert found.seconds == pytest.approx(100 * 5, rel=0.01)
    assert found.bound_by == "commit"
    assert found.busy["commit"] == pytest.approx(4 / 5, rel=0.01)


def test_a_short_run_is_bound_by_its_start() -> None:
    found = run(16, 16, model=1.0, start_s=84)
    assert (found.seconds, found.bound_by) == (100, "start")
    assert found.busy["start"] == pytest.approx(0.84)


def test_a_driver_that_is_slow_is_what_binds() -> None:
    found = run(64, 1, decode=0.0, model=0.001, cluster={"workers": 16}, driver_s=1.0)
    assert found.seconds == pytest.approx(16 + 64, abs=1.0)
    assert found.bound_by == "driver"


def test_views_of_a_video_are_decoded_once() -> None:
    found = run(60, 30, decode=1.0, decoders=0, setup={"num_views": 6})
    assert found.seconds == pytest.approx(10)


def test_a_batch_waits_for_its_slowest_video() -> None:
    # As many decoders as clips, so on average it is done after 5 s, and after 9 with the last.
    setup, rates = WorkerSetup(decoders=8, batch_size=8), Rates(decode_s=(1.0, 9.0), model_s=0.0)
    assert simulate(8, 8, setup, Cluster(), rates).seconds == 9.0
    # Shard by shard in one process, each waits anew; 64 shards of 1 s would need luck of 2^-8.
    assert simulate(512, 8, setup, Cluster(), rates).seconds >= 62 * 9.0


def test_a_worker_that_dies_costs_what_it_had_in_work() -> None:
    lasting = run(4000, 20, model=1.0, cluster={"workers": 4}, start_s=10)
    dying = run(4000, 20, model=1.0, cluster={"workers": 4, "worker_lifetime_s": 300}, start_s=10)
    assert dying.num_lost > 5
    assert sum(commit.num_clips for commit in dying.commits) == 4000
    # Each loss: up to two shards of 20 s, and another start.
    assert lasting.seconds < dying.seconds < lasting.seconds + dying.num_lost * (40 + 10)


def test_workers_that_never_finish_a_shard_end_the_run_as_they_would() -> None:
    with pytest.raises(DriverError):
        run(4000, 1000, model=1.0, cluster={"workers": 2, "worker_lifetime_s": 10})


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"clips": 0}, "clips"),
        ({"shard_size": 0}, "shard_size"),
        ({"decode": -1.0}, "decoder"),
        ({"cluster": {"workers": -1}}, "workers"),
        ({"cluster": {"nodes": 0}}, "nodes"),
        ({"cluster": {"store_bytes_s": 0}}, "store_bytes_s"),
        ({"cluster": {"worker_lifetime_s": float("nan")}}, "worker_lifetime_s"),
    ],
)
def test_numbers_that_no_run_has_are_refused(change: dict[str, Any], names: str) -> None:
    with pytest.raises(ConfigError, match=names):
        run(**({"clips": 8, "shard_size": 8} | change))
