"""A build into an object store gives the bytes of a build into a folder, resumed or not."""

from __future__ import annotations

from pipeline.store.verify import verify_store
from tests.builds import file_hashes, make_dataset, run_build
from tests.faults.chaos import Order, chaos
from tests.integration.test_s3_store import (  # noqa: F401  fixtures
    bucket,
    object_hashes,
    pytestmark,
    s3_endpoint,
)


def test_a_build_that_fails_half_way_and_is_resumed(
    bucket,  # noqa: F811
    tmp_path,
    tiny_backbone,
):
    data = make_dataset(tmp_path / "data", 10, missing=(5,))
    run_build(tmp_path / "store", data, tiny_backbone)
    url = f"{bucket}/stores/one"
    order = Order("commit", shard=1, act="raise")
    result = run_build(
        url,
        data,
        tiny_backbone,
        run={"max_attempts": 1},
        worker_class=chaos(tmp_path / "chaos", order),
    )
    assert [loss.shard for loss in result.given_up] == [1]
    assert run_build(url, data, tiny_backbone).complete
    hashes = {k: v for k, v in object_hashes(url).items() if not k.startswith("runs/")}
    assert hashes == file_hashes(tmp_path / "store")
    assert verify_store(url) == []


def test_the_side_log_is_there(bucket, tmp_path, tiny_backbone):  # noqa: F811
    data = make_dataset(tmp_path / "data", 5)
    run_build(f"{bucket}/s", data, tiny_backbone)
    assert any(name.startswith("runs/2") for name in object_hashes(f"{bucket}/s"))
