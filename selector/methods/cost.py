"""What one view costs: multiply-accumulates, counted on no data.

The literature's "GFLOPs" are multiply-accumulates (GMACs) of one view; so are ours. They are
counted by `torch.utils.flop_counter` on a copy of the model that lives on PyTorch's meta device,
which has shapes and no values: every kernel is counted as it would run, none runs.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from typing import Any, TypeVar

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from pipeline.backbones.base import Backbone
from selector.training.model import TokenSelector

Module = TypeVar("Module", bound=nn.Module)


@dataclass(frozen=True, kw_only=True)
class ViewCost:
    """GMACs of one view, by where they are spent."""

    embed: float
    """Patch embedding of all tokens."""
    selector: float
    """Scoring all tokens; 0 where all are kept."""
    blocks: float
    """Transformer blocks and head, on the kept tokens."""
    confidence: float = 0.0
    """The model that sets an adaptive budget; 0 for a fixed one, and where its pass over the kept
    tokens is the answer, whose blocks are counted above."""

    @property
    def backbone(self) -> float:
        """Without selector and confidence model: the column that the paper's formula gives."""
        return self.embed + self.blocks

    @property
    def total(self) -> float:
        """Everything."""
        return self.backbone + self.selector + self.confidence


class CostModel:
    """Costs of one backbone, with or without a selector, at any number of kept tokens.

    Args:
        backbone: counted by its shapes; its weights may be anywhere.
        selector: what ranks the tokens; None for a ranking that costs nothing (random, oracle).
    """

    def __init__(self, backbone: Backbone, selector: TokenSelector | None = None) -> None:
        self._backbone = without_data(backbone)
        self._num_tokens = backbone.grid.num_tokens
        side = backbone.image_size
        pixels = torch.empty(1, backbone.num_frames, 3, side, side, device="meta")
        self._embed = count_gmacs(self._backbone.embed, pixels.to(backbone.dtype))
        self._selector = (
            selector.macs_per_token() * self._num_tokens / 1e9 if selector is not None else 0.0
        )
        self._blocks: dict[int, float] = {}

    def at(self, num_kept: int, *, confidence: float = 0.0, ranked: bool | None = None) -> ViewCost:
        """The cost of one view that keeps `num_kept` tokens.

        Args:
            num_kept: tokens that enter block 1.
            confidence: GMACs of the model that set this budget.
            ranked: whether the selector ran; None: only if tokens were dropped.
        """
        if ranked is None:
            ranked = num_kept < self._num_tokens
        if num_kept not in self._blocks:
            tokens = torch.empty(
                1, num_kept, self._backbone.hidden_size, dtype=self._backbone.dtype, device="meta"
            )
            self._blocks[num_kept] = count_gmacs(self._backbone.forward_tokens, tokens)
        return ViewCost(
            embed=self._embed,
            selector=self._selector if ranked else 0.0,
            blocks=self._blocks[num_kept],
            confidence=confidence,
        )


def count_gmacs(function: Callable[..., Any], *inputs: torch.Tensor) -> float:
    """GMACs of one call on meta tensors; a multiply-accumulate is two floating-point operations."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        function(*inputs)
    return counter.get_total_flops() / 2e9


def without_data(module: Module) -> Module:
    """A copy whose parameters and buffers are on the meta device; the weights are not copied."""
    # deepcopy asks this table first, and finds every tensor "already copied".
    table: dict[int, Any] = {
        id(tensor): nn.Parameter(tensor.to("meta"), requires_grad=False)
        if isinstance(tensor, nn.Parameter)
        else tensor.to("meta")
        for tensor in chain(module.parameters(), module.buffers())
    }
    return copy.deepcopy(module, table)
