"""Decisions in float32 at least, whatever a model computes in: in bfloat16 many scores tie."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def in_full_precision(values: Tensor) -> Tensor:
    """The same in float32; what is in float64 stays so."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def as_precise_as_given(values: Tensor) -> AbstractContextManager[object]:
    """Within it, products are as precise as their factors: autocast, which rounds them, is off.

    Args:
        values: on the device that is meant.
    """
    if values.is_meta or not torch.is_autocast_enabled(values.device.type):
        return nullcontext()
    return torch.autocast(values.device.type, enabled=False)
