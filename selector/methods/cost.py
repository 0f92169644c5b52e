"""What one view costs: multiply-accumulates, counted on no data.

The literature's "GFLOPs" are multiply-accumulates (GMACs) of one view; so are ours. They are
counted by `torch.utils.flop_counter` on a copy of the model that lives on PyTorch's meta device,
which has shapes and no values: every kernel is counted as it would run, none runs.
"""

from __future__ import annotations

import copy
import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple, TypeVar

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from pipeline.backbones.base import Backbone
from pipeline.backbones.tokens import NOTHING, Tokens, grid_tokens
from pipeline.errors import ConfigError
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


class Flow(NamedTuple):
    """What a method needs to know of a backbone to say what becomes of its tokens.

    Attributes:
        num: tokens per clip that enter the first block, the prefix included.
        num_layers: blocks.
        prefix: tokens among them that must stay.
        off_grid: how many of those lie on no grid.
        head_size: channels of one attention head.
        hidden_size: channels of a token.
    """

    num: int
    num_layers: int
    prefix: int = 0
    off_grid: int = 0
    head_size: int = 64
    hidden_size: int = 768


class TokenCounts(NamedTuple):
    """Tokens of one view on their way, the prefix included: what a view costs follows from these.

    Attributes:
        attention: at the attention of each block.
        mlp: at the MLP of each block.
        head: at the head.
    """

    attention: tuple[int, ...]
    mlp: tuple[int, ...]
    head: int

    @classmethod
    def constant(cls, num: int, num_layers: int) -> TokenCounts:
        """The same number all the way."""
        return cls((num,) * num_layers, (num,) * num_layers, num)


class CostModel:
    """Costs of one backbone, with or without a selector, for any course of its tokens.

    Counted block half by block half on shapes without data, so that it equals a count of the whole
    model (the tests compare), at any schedule for the price of a sum.

    Args:
        backbone: counted by its shapes; its weights may be anywhere.
        selector: what ranks the tokens; None for a ranking that costs nothing (random, oracle).

    Attributes:
        num_tokens: of the full grid.
        flow: of all tokens.
    """

    def __init__(self, backbone: Backbone, selector: TokenSelector | None = None) -> None:
        self._backbone = without_data(backbone)
        self.num_tokens = backbone.grid.num_tokens
        self.flow = Flow(
            self.num_tokens + backbone.off_grid,
            backbone.num_layers,
            backbone.prefix,
            backbone.off_grid,
            backbone.head_size,
            backbone.hidden_size,
        )
        side = backbone.image_size
        pixels = torch.empty(1, backbone.num_frames, 3, side, side, device="meta")
        self._embed = count_gmacs(self._backbone.embed, pixels.to(backbone.dtype))
        self._selector = (
            selector.macs_per_token() * self.num_tokens / 1e9 if selector is not None else 0.0
        )
        self._halves: dict[tuple[str, int], int] = {}

    def at(
        self,
        kept: int | TokenCounts,
        *,
        confidence: float = 0.0,
        ranked: bool | None = None,
    ) -> ViewCost:
        """The cost of one view.

        Args:
            kept: tokens of the grid that enter block 1 and stay, or their whole course.
            confidence: GMACs of the model that set this budget.
            ranked: whether the selector ran; None: only if tokens were dropped.
        """
        if ranked is None:
            ranked = not isinstance(kept, int) or kept < self.num_tokens
        return ViewCost(
            embed=self._embed,
            selector=self._selector if ranked else 0.0,
            blocks=self.blocks(kept),
            confidence=confidence,
        )

    def keep_ratio_within(self, gmacs: float) -> float:
        """The largest share of the tokens with which one view costs at most so much.

        Args:
            gmacs: of embedding, blocks and head.

        Raises:
            ConfigError: less than a view of one token costs, or no less than one of all.
        """
        full, least = self.at(self.num_tokens).backbone, self.at(1).backbone
        if not least <= gmacs < full:
            raise ConfigError(
                f"a budget of {gmacs:g} GFLOPs is none here: a view costs {full:.4g} with all "
                f"tokens and {least:.4g} with one"
            )
        kept = range(1, self.num_tokens)
        above = bisect_right(kept, gmacs, key=lambda num: self.at(num).backbone)
        return kept[above - 1] / self.num_tokens

    def keep_ratio_of(self, gmacs: float) -> float:
        """The smallest share of the tokens, in thousandths, that costs at least so much; at most 1.

        Args:
            gmacs: of embedding, blocks and head.
        """
        kept = range(1, self.num_tokens)
        num = bisect_left(kept, gmacs, key=lambda num: self.at(num).backbone) + 1
        return math.ceil(1000 * num / self.num_tokens) / 1000

    def blocks(self, kept: int | TokenCounts) -> float:
        """GMACs of blocks and head."""
        backbone = self._backbone
        if isinstance(kept, int):
            kept = TokenCounts.constant(kept + backbone.off_grid, backbone.num_layers)
        flops = self._half("head", kept.head)
        flops += sum(self._half("attention", num) for num in kept.attention)
        flops += sum(self._half("mlp", num) for num in kept.mlp)
        return flops / 2e9

    def _half(self, which: str, num: int) -> int:
        """Floating-point operations of half a block, or of the head, on `num` tokens."""
        if (which, num) not in self._halves:
            backbone = self._backbone
            block = backbone.blocks[0]  # all blocks of a backbone have one shape
            function: Callable[[Tokens], Any] = {
                "attention": lambda x: block.attend(x, NOTHING),
                "mlp": block.mlp,
                "head": backbone.head,
            }[which]
            size = (1, num, backbone.hidden_size)
            values = torch.empty(size, dtype=backbone.dtype, device="meta")
            x = grid_tokens(values, prefix=backbone.prefix, off_grid=backbone.off_grid)
            self._halves[which, num] = count_flops(function, x)
        return self._halves[which, num]


def count_flops(function: Callable[..., Any], *inputs: Any) -> int:
    """Floating-point operations of one call on meta tensors."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        function(*inputs)
    return counter.get_total_flops()


def count_gmacs(function: Callable[..., Any], *inputs: Any) -> float:
    """GMACs of one call on meta tensors; a multiply-accumulate is two floating-point operations."""
    return count_flops(function, *inputs) / 2e9


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
