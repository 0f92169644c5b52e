"""How many workers fit a cluster, counted node by node, and what is said where there is none."""

from __future__ import annotations

import socket
import time

import pytest

from pipeline.config import RunConfig
from pipeline.errors import DriverError
from pipeline.shards.run import settle_ray_env

settle_ray_env(None)

from pipeline.shards.ray_executor import RayExecutor, _fits  # noqa: E402


@pytest.mark.parametrize(
    ("nodes", "cpus", "gpus", "places"),
    [
        ([{"CPU": 8}], 2, 0, 4),
        ([{"CPU": 8}], 3, 0, 2),
        ([{"CPU": 8}], 2, 1, 0),
        ([{"CPU": 48, "GPU": 4}], 11, 1, 4),
        ([{"CPU": 48, "GPU": 4}], 16, 1, 3),
        ([{"CPU": 0}, {"CPU": 48, "GPU": 4}, {"CPU": 48, "GPU": 4}], 11, 1, 8),
        ([{"CPU": 8, "GPU": 1}, {"CPU": 8, "GPU": 1}], 1, 2, 0),  # 2 GPUs, but not on one node
        ([{"CPU": 8, "GPU": 2}], 1, 0.5, 4),
        ([{"CPU": 8, "GPU": 2}], 1, 0.4, 4),  # not 5: a share must come from one GPU
        ([{"CPU": 8, "GPU": 1}], 1, 1 / 3, 3),
        ([], 1, 0, 0),
    ],
)
def test_workers_that_fit(nodes, cpus, gpus, places):
    assert _fits(nodes, cpus, gpus) == places


@pytest.mark.parametrize("place", ["127.0.0.1:{port}", "ray://127.0.0.1:{port}", "127.0.0.1:99999"])
def test_a_cluster_that_is_not_there_is_found_at_once(place):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = place.format(port=taken.getsockname()[1])  # nobody listens
        config = RunConfig(data_root="videos", workers=1, ray_address=address)
        begun = time.monotonic()
        with pytest.raises(DriverError, match=f"cannot start or join Ray at {address}: "):
            RayExecutor(lambda: None, config, 1)
    assert time.monotonic() - begun < 5
