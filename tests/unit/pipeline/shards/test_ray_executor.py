"""How many workers fit a cluster, counted node by node."""

from __future__ import annotations

import pytest

from pipeline.shards.run import settle_ray_env

settle_ray_env(None)

from pipeline.shards.ray_executor import _fits  # noqa: E402


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
