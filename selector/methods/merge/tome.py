"""ToMe (Bolya et al., "Token Merging: Your ViT But Faster", ICLR 2023), and what it is compared to.

In every block, between attention and MLP, the most similar tokens are merged, by the cosine of
their keys; nothing is trained. The other modes are those of Pollard and Wray ("Video, How Do Your
Tokens Merge?", 2025): they tell apart what the matching and what the merging is worth.

Axes: B clips, K tokens, H heads, a and b tokens of the halves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.backbones.base import Backbone
from pipeline.backbones.tokens import KEYS, Evidence, Reducer, Reduction, Tokens, Wanted, reduce
from selector.methods.base import ClipBatch, Method
from selector.methods.cost import Flow, TokenCounts
from selector.methods.merge.matching import (
    MERGE_LIMIT,
    Pairs,
    by_turns,
    match,
    mean_key,
    most_mergeable,
    pair,
)

MODES = ("merge", "drop", "hybrid", "random-merge", "random-drop")
"""`drop` leaves the sources out; `hybrid` lets a source replace its target where they are less
similar than a threshold; `random-` pairs tokens at random."""


def schedule(r: int, inflect: float, num_layers: int) -> tuple[int, ...]:
    """Pairs to merge in each block: `r` on average, changing linearly (ToMe's `(r, inflect)`).

    Args:
        r: mean number per block.
        inflect: 0 is constant, -1 falls from 2 r to 0, 1 rises from 0 to 2 r.
        num_layers: blocks.
    """
    low = int(r * (1 - inflect))
    step = (2 * r - 2 * low) / (num_layers - 1) if num_layers > 1 else 0.0
    return tuple(int(low + step * layer) for layer in range(num_layers))


def at_random(layer: int, x: Tokens, seeds: Sequence[Sequence[int]]) -> Tensor:
    """Similarities (B, a, b) that mean nothing, from a clip's seeds and the block alone."""
    shape = ((x.num + 1) // 2, x.num // 2)
    rows = [np.random.default_rng([*seed, layer]).random(shape, np.float32) for seed in seeds]
    return torch.from_numpy(np.stack(rows)).to(x.values.device)


@dataclass(frozen=True)
class ToMeReducer(Reducer):
    """Merges `schedule[i]` pairs in block i, or as many as there are."""

    schedule: tuple[int, ...]
    proportional: bool = False
    mode: str = "merge"
    threshold: float = 0.0
    seeds: tuple[tuple[int, ...], ...] = ()
    """For the random modes, per clip."""

    def wants(self, layer: int) -> Wanted | None:
        """The keys, where this block compares any."""
        if not self.schedule[layer]:
            return None
        return frozenset() if self.mode.startswith("random") else frozenset({KEYS})

    def between(self, layer: int, x: Tokens, seen: Evidence) -> Tokens:
        """Compare, and merge or drop."""
        r = min(self.schedule[layer], most_mergeable(x.num, x.prefix))
        return reduce(x, self._decide(self._pairs(layer, x, seen, r), x)) if r else x

    def _pairs(self, layer: int, x: Tokens, seen: Evidence, r: int) -> Pairs:
        if self.mode.startswith("random"):
            halves = by_turns(x.num, x.values.device)
            return pair(at_random(layer, x, self.seeds), *halves, r, x.prefix)
        assert seen.keys is not None
        return match(mean_key(seen.keys), r, x.prefix)

    def _decide(self, pairs: Pairs, x: Tokens) -> Reduction:
        by_position = x.prefix > 0  # the prefix must stay in front
        if self.mode.endswith("drop"):
            return pairs.dropped(by_position=by_position)
        merged = pairs.merged(by_position=by_position)
        if self.mode != "hybrid":
            return merged
        assert merged.merge is not None
        unlike = torch.where(pairs.similar < self.threshold, pairs.target, 0)
        erase = torch.zeros_like(x.place, dtype=torch.bool).scatter(1, unlike, True)
        # Position 0 is in the first half: nothing merges into it, and nothing erases it.
        erase[:, 0] = False
        return Reduction(merged.keep, merged.merge._replace(erase=erase))


@dataclass(frozen=True)
class ToMe(Method):
    """Merges similar tokens in every block; its setting is `r`, the mean number per block.

    Attributes:
        inflect: 0 merges equally in all blocks; -1 falls linearly from 2 r to none, 1 rises.
        proportional: attention weighs a merged token by its size. Off by default: it helps
            supervised image models and harms masked autoencoders (the paper's appendix), which
            VideoMAE is.
        mode: one of `MODES`.
        threshold: cosine below which `hybrid` replaces instead of merging.
        seed: of the random modes.
    """

    limit = MERGE_LIMIT
    inflect: float = 0.0
    proportional: bool = False
    mode: str = "merge"
    threshold: float = 0.8
    seed: int = 0

    def __str__(self) -> str:
        options = [f"inflect={self.inflect:g}"] if self.inflect else []
        options += ["prop-attn"] if self.proportional else []
        if self.mode == "hybrid":
            options.append(f"hybrid={self.threshold:g}")
        elif self.mode != "merge":
            options.append(self.mode)
        return "tome" + (f"[{','.join(options)}]" if options else "")

    def fits(self, backbone: Backbone) -> str | None:
        """Any backbone, if tokens are dropped; to merge them, its blocks must attend over all."""
        return None if self.mode.endswith("drop") else backbone.merging_refused

    def prepare(self, batch: ClipBatch) -> tuple[int, tuple[tuple[int, ...], ...]]:
        """The number of blocks, and each clip's seed; what merges is seen inside the blocks."""
        entropies = batch.entropies(self.seed) if self.mode.startswith("random") else ()
        return batch.backbone.num_layers, tuple(map(tuple, entropies))

    def reducer(
        self, prepared: tuple[int, tuple[tuple[int, ...], ...]], setting: int
    ) -> ToMeReducer:
        """Merge by the schedule of `setting`."""
        num_layers, seeds = prepared
        merges = schedule(setting, self.inflect, num_layers)
        return ToMeReducer(merges, self.proportional, self.mode, self.threshold, seeds)

    def knobs(self, flow: Flow) -> Sequence[int]:
        """From no pair to the number from which more changes nothing."""
        return range(flow.num + 1)

    def counts(self, setting: int, flow: Flow) -> TokenCounts:
        """Fewer from block to block; a block's attention still sees what came into it."""
        num, attention, mlp = flow.num, [], []
        for pairs in schedule(setting, self.inflect, flow.num_layers):
            attention.append(num)
            num -= min(pairs, most_mergeable(num, flow.prefix))
            mlp.append(num)
        return TokenCounts(tuple(attention), tuple(mlp), num)

    def overhead(self, setting: int, flow: Flow) -> float:
        """The products of both halves' keys, wherever something is merged."""
        if self.mode.startswith("random"):
            return 0.0
        return comparisons(self.counts(setting, flow)) * flow.head_size / 1e9


def comparisons(counts: TokenCounts) -> int:
    """Similarities that matching by turns computes, in the blocks whose attention sees more."""
    both = zip(counts.attention, counts.mlp, strict=True)
    return sum((n + 1) // 2 * (n // 2) for n, left in both if left < n)
