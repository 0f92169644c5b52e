"""Builds on CUDA: the same bytes twice, the CPU's values, and what follows when memory runs out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline.shards.worker import is_broken_cuda
from pipeline.store.reader import open_store
from pipeline.store.verify import verify_store
from tests.builds import file_hashes, make_dataset, run_build
from tests.checkpoints import BASE, save_videomae


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("data"), 10, missing=(5,))


@pytest.mark.parametrize("layer", ["blocks.-1.output", "blocks.0.mlp", "embeddings"])
def test_two_builds_are_the_same_bytes(tmp_path, data, tiny_backbone, layer):
    for name in ("one", "two"):
        run_build(
            tmp_path / name, data, tiny_backbone, asked={"layer": layer}, run={"device": "cuda"}
        )
    assert file_hashes(tmp_path / "one") == file_hashes(tmp_path / "two")
    assert verify_store(str(tmp_path / "one")) == []


def test_the_values_are_those_of_the_cpu(tmp_path, data, tiny_backbone):
    for device in ("cpu", "cuda"):
        run_build(tmp_path / device, data, tiny_backbone, run={"device": device})
    cpu, cuda = open_store(tmp_path / "cpu"), open_store(tmp_path / "cuda")
    assert cpu.clips()["prediction"].tolist() == cuda.clips()["prediction"].tolist()
    np.testing.assert_allclose(cuda.clips()["loss"], cpu.clips()["loss"], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(cuda.scores[:], cpu.scores[:], atol=5e-3)
    assert cpu.embedding_index[:].tobytes() == cuda.embedding_index[:].tobytes()


def test_out_of_memory_halves_the_batch_and_gives_the_same_values(tmp_path, caplog):
    data = make_dataset(tmp_path / "data", 32)
    shape = {"num_labels": 5, **BASE, "patch_size": 16, "hidden_size": 192}
    backbone = save_videomae(tmp_path / "backbone", **shape)
    options = {"asked": {"shard_size": 32}, "run": {"device": "cuda", "batch_size": 32}}
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    run_build(tmp_path / "whole", data, backbone, **options)
    needed = torch.cuda.max_memory_allocated()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(0.7 * needed / total)
    try:
        run_build(tmp_path / "halved", data, backbone, **options)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert "is out of memory with 32 clips; going on with 16" in caplog.text
    whole, halved = open_store(tmp_path / "whole"), open_store(tmp_path / "halved")
    np.testing.assert_allclose(halved.clips()["loss"], whole.clips()["loss"], rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(halved.scores[:], whole.scores[:], atol=1e-2)


def test_a_cuda_assertion_is_recognised():
    # In a process of its own: CUDA is unusable afterwards.
    import subprocess
    import sys

    code = (
        "import torch\n"
        "from pipeline.shards.worker import is_broken_cuda\n"
        "try:\n"
        "    torch.zeros(2, device='cuda')[torch.tensor([5], device='cuda')].cpu()\n"
        "except Exception as error:\n"
        "    raise SystemExit(0 if is_broken_cuda(error) else 3)\n"
        "raise SystemExit(4)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=120, check=False).returncode == 0
    assert not is_broken_cuda(torch.OutOfMemoryError("CUDA out of memory"))


@pytest.mark.ray
def test_a_ray_worker_gets_the_gpu_it_asked_for(tmp_path, data, tiny_backbone):
    run_build(tmp_path / "serial", data, tiny_backbone, run={"device": "cuda"})
    run_build(
        tmp_path / "ray",
        data,
        tiny_backbone,
        run={"device": "cuda", "workers": 1, "gpus_per_worker": 1.0},
    )
    assert file_hashes(tmp_path / "serial") == file_hashes(tmp_path / "ray")
