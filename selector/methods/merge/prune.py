"""Dropping tokens inside the blocks by what the blocks show, after EViT and Representation Shift.

No code of either could be run on a video transformer that pools over all tokens, so these are our
own definitions in their spirit, and are to be named so.

Axes: B clips, K tokens, D channels.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pipeline.backbones.precision import in_full_precision
from pipeline.backbones.tokens import (
    NOTHING,
    RECEIVED,
    Evidence,
    Reducer,
    Reduction,
    Tokens,
    Wanted,
    reduce,
)
from selector.methods.base import ClipBatch, Method
from selector.methods.cost import Flow, TokenCounts
from selector.methods.keep import top_tokens

STEPS = 1000
"""A setting counts in thousandths of the tokens that a pruning block drops."""


def num_left(num: int, setting: int, prefix: int) -> int:
    """Tokens that one pruning leaves of `num`; at least one beside the prefix."""
    loose = num - prefix
    return prefix + max(1, loose - loose * setting // STEPS)


def keep_highest(x: Tokens, scores: Tensor, left: int) -> Tokens:
    """The prefix and the best of the others by `scores` (B, K), in the order they are in."""
    scores = scores.clone()
    scores[:, : x.prefix] = torch.inf
    return reduce(x, Reduction(top_tokens(scores, left)))


class PruningMethod(Method):
    """Drops the same share in each of some blocks; its setting is that share."""

    limit = "the blocks before the first that drops run on all tokens"

    @abstractmethod
    def pruning_blocks(self, num_layers: int) -> tuple[int, ...]:
        """The blocks that drop tokens."""

    def prepare(self, batch: ClipBatch) -> tuple[int, ...]:
        """The blocks that drop tokens."""
        return self.pruning_blocks(batch.backbone.num_layers)

    def knobs(self, flow: Flow) -> Sequence[int]:
        """From nothing to all but one."""
        return range(STEPS + 1)


@dataclass(frozen=True)
class EViTReducer(Reducer):
    """Drops, between attention and MLP, the tokens that receive the least attention."""

    setting: int
    blocks: tuple[int, ...]

    def wants(self, layer: int) -> Wanted | None:
        """The attention received, in a pruning block."""
        return frozenset({RECEIVED}) if self.setting and layer in self.blocks else None

    def between(self, layer: int, x: Tokens, seen: Evidence) -> Tokens:
        """Keep the best."""
        assert seen.received is not None
        return keep_highest(x, seen.received, num_left(x.num, self.setting, x.prefix))


class EViT(PruningMethod):
    """Keeps what receives most attention, mean over heads and queries, at three depths.

    EViT (Liang et al., 2022) goes by the attention of the CLS token, which a mean-pooling model has
    not, and fuses the rest into one token; EVAD drops at blocks 4, 7 and 10 of 12, as here.
    """

    def __str__(self) -> str:
        return "evit"

    def pruning_blocks(self, num_layers: int) -> tuple[int, ...]:
        """A quarter, a half and three quarters of the way: the 4th, 7th and 10th of 12."""
        return tuple(dict.fromkeys(num_layers * i // 4 for i in (1, 2, 3)))

    def reducer(self, prepared: tuple[int, ...], setting: int) -> EViTReducer:
        """Drop that share in each."""
        return EViTReducer(setting, prepared)

    def counts(self, setting: int, flow: Flow) -> TokenCounts:
        """Fewer from the MLP of each pruning block on."""
        num, attention, mlp = flow.num, [], []
        for layer in range(flow.num_layers):
            attention.append(num)
            if layer in self.pruning_blocks(flow.num_layers):
                num = num_left(num, setting, flow.prefix)
            mlp.append(num)
        return TokenCounts(tuple(attention), tuple(mlp), num)


@dataclass(frozen=True)
class ShiftReducer(Reducer):
    """Drops, after a block, the tokens that its MLP moved the least."""

    setting: int
    blocks: tuple[int, ...]
    _before: dict[int, Tensor] = field(default_factory=dict)

    def wants(self, layer: int) -> Wanted | None:
        """Nothing but to be asked."""
        return NOTHING if self.setting and layer in self.blocks else None

    def between(self, layer: int, x: Tokens, seen: Evidence) -> Tokens:
        """Remember what comes into the MLP."""
        self._before[layer] = x.values
        return x

    def after(self, layer: int, x: Tokens, seen: Evidence) -> Tokens:
        """Keep those that moved most."""
        before = self._before.pop(layer)
        shift = (in_full_precision(x.values) - in_full_precision(before)).norm(dim=-1)
        return keep_highest(x, shift, num_left(x.num, self.setting, x.prefix))


class RepresentationShift(PruningMethod):
    """Keeps what the MLPs of the first blocks change most, by the length of their output.

    After Representation Shift (Choi et al., 2025), which drops 10 to 20 % of the tokens in early
    blocks and needs no attention map.
    """

    def __str__(self) -> str:
        return "repshift"

    def pruning_blocks(self, num_layers: int) -> tuple[int, ...]:
        """The first half of them."""
        return tuple(range((num_layers + 1) // 2))

    def reducer(self, prepared: tuple[int, ...], setting: int) -> ShiftReducer:
        """Drop that share after each."""
        return ShiftReducer(setting, prepared)

    def counts(self, setting: int, flow: Flow) -> TokenCounts:
        """Fewer after each pruning block."""
        num, counts = flow.num, []
        for layer in range(flow.num_layers):
            counts.append(num)
            if layer in self.pruning_blocks(flow.num_layers):
                num = num_left(num, setting, flow.prefix)
        return TokenCounts(tuple(counts), tuple(counts), num)
