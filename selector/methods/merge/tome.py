"""ToMe (Bolya et al., "Token Merging: Your ViT But Faster", ICLR 2023).

In every block, between attention and MLP, the most similar tokens are merged, by the cosine of
their keys; nothing is trained and nothing is dropped.

Axes: B clips, K tokens, H heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.backbones.base import Backbone
from pipeline.backbones.tokens import KEYS, Evidence, Reducer, Tokens, Wanted, reduce
from selector.methods.base import ClipBatch, Method
from selector.methods.cost import Flow, TokenCounts
from selector.methods.merge.matching import match, most_mergeable


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


@dataclass(frozen=True)
class ToMeReducer(Reducer):
    """Merges `schedule[i]` pairs in block i, or as many as there are."""

    schedule: tuple[int, ...]
    proportional: bool = False

    def wants(self, layer: int) -> Wanted | None:
        """The keys, where this block merges anything."""
        return frozenset({KEYS}) if self.schedule[layer] else None

    def between(self, layer: int, x: Tokens, seen: Evidence) -> Tokens:
        """Compare by keys, averaged over the heads, and merge."""
        assert seen.keys is not None
        pairs = min(self.schedule[layer], most_mergeable(x.num, x.prefix))
        return reduce(x, match(seen.keys.mean(dim=1), pairs, x.prefix)) if pairs else x


@dataclass(frozen=True)
class ToMe(Method):
    """Merges similar tokens in every block; its setting is `r`, the mean number per block.

    Attributes:
        inflect: 0 merges equally in all blocks; -1 falls linearly from 2 r to none, 1 rises.
        proportional: attention weighs a merged token by its size. Off by default: it helps
            supervised image models and harms masked autoencoders (the paper's appendix), which
            VideoMAE is.
    """

    inflect: float = 0.0
    proportional: bool = False

    def __str__(self) -> str:
        options = [f"inflect={self.inflect:g}"] if self.inflect else []
        options += ["prop-attn"] if self.proportional else []
        return "tome" + (f"[{','.join(options)}]" if options else "")

    def fits(self, backbone: Backbone) -> str | None:
        """Any backbone whose blocks attend over all tokens of a clip."""
        return backbone.merging_refused

    def prepare(self, batch: ClipBatch) -> int:
        """The number of blocks; what merges is seen inside them."""
        return batch.backbone.num_layers

    def reducer(self, prepared: int, setting: int) -> ToMeReducer:
        """Merge by the schedule of `setting`."""
        return ToMeReducer(schedule(setting, self.inflect, prepared), self.proportional)

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
        counts = self.counts(setting, flow)
        before_after = zip(counts.attention, counts.mlp, strict=True)
        products = sum((n + 1) // 2 * (n // 2) for n, left in before_after if left < n)
        return products * flow.head_size / 1e9
