"""A batch through the model: whole, or clip by clip where something raises.

So that one clip costs its own rows and nobody else's. What says nothing about a clip is raised: an
error of ours, a CUDA that is unusable from now on, and whatever every clip raises alike.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import TypeVar

import torch

from pipeline.errors import ClipStatus, DecodeError, LiteError
from pipeline.shards.batches import Batch
from pipeline.shards.poison import Guard

logger = logging.getLogger(__name__)

Output = TypeVar("Output")

_EXIT_BROKEN_CUDA = 70


def run_steps(
    batch: Batch,
    step: Callable[[Batch], Output],
    guard: Guard,
    on_failure: Callable[[int, DecodeError], None],
    *,
    in_actor: bool,
) -> list[Output]:
    """What `step` makes of a batch, in as many parts as it took; single clips keep its shape.

    Args:
        batch: clips of one shard.
        step: the model's work.
        guard: of this attempt; leaves a trace of the clips in hand.
        on_failure: called with the position of every clip that `step` raises on, and why.
        in_actor: whether the process may end, for a fresh one to take over a broken CUDA.

    Raises:
        Exception: what `step` raised, if it is no matter of clips.
    """
    with guard.touching(batch.facts):
        try:
            return [step(batch)]
        except LiteError:
            raise
        except Exception as error:
            if is_broken_cuda(error):
                _leave(error, in_actor)
            if len(batch.facts) == 1:
                [position] = batch.facts
                message = f"{type(error).__name__}: {error}"
                on_failure(position, DecodeError(ClipStatus.MODEL_ERROR, message))
                return []
            singles = (batch.only([position]) for position in batch.facts)
            outputs = [
                output
                for single in singles
                for output in run_steps(single, step, guard, on_failure, in_actor=in_actor)
            ]
            if not outputs:
                raise  # nothing works: the fault is not in the clips
            return outputs


def is_broken_cuda(error: Exception) -> bool:
    """Whether CUDA is unusable in this process from now on (anything but out of memory)."""
    if isinstance(error, torch.OutOfMemoryError):
        return False
    kinds = getattr(torch, "AcceleratorError", ())
    return isinstance(error, kinds) or "CUDA error" in str(error)


def _leave(error: Exception, in_actor: bool) -> None:
    if in_actor:
        logger.critical("CUDA is broken in this process, which ends: %s", error)
        os._exit(_EXIT_BROKEN_CUDA)
    raise error
