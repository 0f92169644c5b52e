"""A Ray cluster of two nodes loses one in the middle of a build; nothing else is lost."""

from __future__ import annotations

import threading
import time

import pytest

from tests.builds import file_hashes, make_dataset, run_build
from tests.faults.chaos import Order, chaos, workers_met

pytestmark = pytest.mark.ray

NUM_VIDEOS = 24  # 6 shards


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("data"), NUM_VIDEOS)


@pytest.fixture
def cluster(monkeypatch):
    monkeypatch.setenv("RAY_worker_niceness", "0")  # Ray's 15 starves workers on a busy machine
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 1, "include_dashboard": False, "object_store_memory": 80 << 20},
    )
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def test_losing_a_node_loses_nothing(cluster, tmp_path, data, tiny_backbone):
    node = cluster.add_node(num_cpus=1, object_store_memory=80 << 20)
    folder = tmp_path / "chaos"
    worker_class = chaos(folder, Order("score", act="pause", times=100))
    lost = threading.Event()

    def lose_a_node():
        while len(workers_met(folder)) < 2:  # one worker fits each node
            time.sleep(0.1)
        cluster.remove_node(node, allow_graceful=False)
        lost.set()

    threading.Thread(target=lose_a_node, daemon=True).start()
    result = run_build(
        tmp_path / "store",
        data,
        tiny_backbone,
        run={"workers": 2, "ray_address": cluster.address},
        worker_class=worker_class,
    )
    assert lost.is_set()
    assert result.complete
    assert result.given_up == []
    run_build(tmp_path / "undisturbed", data, tiny_backbone)
    assert file_hashes(tmp_path / "store") == file_hashes(tmp_path / "undisturbed")
