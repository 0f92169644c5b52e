"""Which device a worker uses."""

from __future__ import annotations

import pytest
import torch

from pipeline.backbones.loading import _device
from pipeline.config import RunConfig
from pipeline.errors import ConfigError


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
