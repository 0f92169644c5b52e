"""Augmentation that may change the class: a mirror turns left into right, backwards even more."""

from __future__ import annotations

from itertools import permutations

import torch
from torch import Tensor

from datasets_spec.synthetic.actions import MIRRORED, REVERSED
from datasets_spec.synthetic.actors import NO_ACTION

# One more entry at the end, where the index -1 (no action) finds itself again.
_MIRRORED = torch.tensor([*MIRRORED, NO_ACTION])
_REVERSED = torch.tensor([*REVERSED, NO_ACTION])
_CHANNELS = torch.tensor(list(permutations(range(3))))


def augment(
    frames: Tensor, labels: Tensor, actions: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Mirrors, reverses and recolours each clip with its labels, each with its own chance.

    Args:
        frames: uint8 (B, T, H, W, 3).
        labels: int64 (B,).
        actions: int64 (B, t, y, x), class id or `NO_ACTION` per token.
        generator: decides, on the CPU.

    Returns:
        The three, changed.
    """
    chance = torch.rand(3, len(frames), generator=generator).to(frames.device)
    mirror, back = chance[0] < 0.5, chance[1] < 0.5
    frames = _where(mirror, frames.flip(3), frames)
    labels = _where(mirror, _MIRRORED.to(labels.device)[labels], labels)
    actions = _where(mirror, _MIRRORED.to(labels.device)[actions.flip(3)], actions)
    frames = _where(back, frames.flip(1), frames)
    labels = _where(back, _REVERSED.to(labels.device)[labels], labels)
    actions = _where(back, _REVERSED.to(labels.device)[actions.flip(1)], actions)
    order = _CHANNELS.to(frames.device)[(chance[2] * len(_CHANNELS)).long()]
    frames = frames.gather(4, order[:, None, None, None, :].expand(frames.shape))
    return frames, labels, actions


def _where(chosen: Tensor, changed: Tensor, plain: Tensor) -> Tensor:
    return torch.where(chosen.view(-1, *[1] * (plain.ndim - 1)), changed, plain)
