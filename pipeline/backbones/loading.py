"""Loads a run's backbone in a worker, on the device that the worker is to use."""

from __future__ import annotations

import os
import socket

import torch

from pipeline.backbones import Backbone, load_backbone
from pipeline.config import ClipConfig, RunConfig
from pipeline.errors import BackboneError, ConfigError


def load_for_run(config: ClipConfig, run_config: RunConfig) -> Backbone:
    """Load the backbone and settle threads, device and determinism of this process.

    Raises:
        BackboneError: the checkpoint does not load, or is not the one the run was begun with.
        ConfigError: CUDA was asked for and there is none.
    """
    torch.set_num_threads(run_config.threads_per_worker)
    device = torch.device(_device(run_config))
    if device.type == "cuda":
        _make_cuda_exact()
    revision = run_config.backbone_commit or config.revision
    backbone = load_backbone(config.backbone, revision, str(device), config.precision)
    if backbone.digest != config.backbone_digest:
        raise BackboneError(
            f"the checkpoint {config.backbone} has digest {backbone.digest[:12]} here, but the run "
            f"began with {config.backbone_digest[:12]}: every node needs the same files, and they "
            "must not change during a run"
        )
    return backbone


def _device(run_config: RunConfig) -> str:
    asked = run_config.device
    # Ray lets a worker that reserved no GPU see them all: several would crowd onto the first.
    may_use_cuda = run_config.workers == 0 or run_config.gpus_per_worker > 0
    has_cuda = may_use_cuda and torch.cuda.is_available()
    if asked == "auto" and run_config.workers and run_config.gpus_per_worker and not has_cuda:
        raise ConfigError(
            f"a worker on {socket.gethostname()} has reserved {run_config.gpus_per_worker:g} GPU(s)"
            f", and PyTorch {torch.__version__} finds no CUDA device there: is it built for CUDA, "
            "and is the driver new enough for it? Mend that, or run on the CPU with "
            "--gpus-per-worker 0"
        )
    if asked == "auto":
        return "cuda" if has_cuda else "cpu"
    if asked.startswith("cuda") and not has_cuda:
        raise ConfigError(
            f"device {asked} was asked for, but "
            + ("this process sees no CUDA device" if may_use_cuda else "the workers reserve no GPU")
            + ": use --device cpu, or give each Ray worker one with --gpus-per-worker 1"
        )
    return asked


def _make_cuda_exact() -> None:
    """No TF32, and kernels that give the same bits every time."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it at its start
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True, warn_only=True)
