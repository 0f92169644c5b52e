"""Which device a worker uses."""

from __future__ import annotations

import pytest
import torch

from pipeline.backbones import backbone_digest, load_backbone, loading
from pipeline.backbones.loading import _device, load_for_run
from pipeline.config import RunConfig
from pipeline.errors import ConfigError
from tests.stores import make_config


@pytest.mark.parametrize(
    ("cuda", "fields", "expected"),
    [
        (True, {}, "cuda"),
        (False, {}, "cpu"),
        (True, {"device": "cpu"}, "cpu"),
        (True, {"device": "cuda:1"}, "cuda:1"),
        (True, {"workers": 2, "gpus_per_worker": 0.5}, "cuda"),
        (True, {"workers": 2}, "cpu"),  # sees the GPUs under Ray, but has reserved none
    ],
)
def test_the_device(monkeypatch, cuda, fields, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    assert _device(RunConfig(data_root="x", **fields)) == expected


def test_a_reserved_gpu_without_cuda_is_no_reason_to_compute_on_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    reserved = {"workers": 2, "gpus_per_worker": 0.5}
    with pytest.raises(ConfigError, match=r"reserved 0.5 GPU\(s\).*finds no CUDA.*driver"):
        _device(RunConfig(data_root="x", **reserved))
    assert _device(RunConfig(data_root="x", device="cpu", **reserved)) == "cpu", "when asked for"


def test_workers_load_the_commit_that_the_driver_found(monkeypatch, tiny_backbone):
    asked = []

    def load(name, revision, device, precision):
        asked.append(revision)
        return load_backbone(name, None, device, precision)

    monkeypatch.setattr(loading, "load_backbone", load)
    digest = backbone_digest(str(tiny_backbone))
    config = make_config(backbone=str(tiny_backbone), backbone_digest=digest, revision="main")
    for commit in (None, "c0ffee"):
        load_for_run(config, RunConfig(data_root="x", backbone_commit=commit))
    assert asked == ["main", "c0ffee"]


@pytest.mark.parametrize(
    ("cuda", "fields", "why"),
    [
        (False, {}, "this process sees no CUDA device"),
        (True, {"workers": 2}, "the workers reserve no GPU"),
    ],
)
def test_cuda_that_cannot_be_had_is_refused(monkeypatch, cuda, fields, why):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    with pytest.raises(ConfigError, match=why):
        _device(RunConfig(data_root="x", device="cuda", **fields))
