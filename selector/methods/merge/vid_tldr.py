"""vid-TLDR (Choi et al., "Training-free Token Merging for Light-weight Video Transformer", 2024).

In the first blocks, tokens are merged by the likeness of what they hold, and a merged token counts
for as much as it is salient: sources from the background vanish. A token is salient where its
attention is sharp, that is, of low entropy.

Axes: B clips, K tokens, D channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.backbones.base import Backbone
from pipeline.backbones.tokens import PROBABILITIES, Evidence, Reducer, Tokens, Wanted, reduce
from selector.methods.base import ClipBatch, Method
from selector.methods.cost import Flow, TokenCounts
from selector.methods.merge.matching import MERGE_LIMIT, match, most_mergeable
from selector.methods.merge.tome import comparisons
from selector.methods.names import shares_name

SHARES = (1, 1, 1, 1)
"""Blocks that merge, all alike; the released models have one to four, alike or not."""
_TINY = 1e-17


def saliency(probabilities: Tensor) -> Tensor:
    """How sharp each token's attention is, 0 where it is blunter than the clip's mean.

    Args:
        probabilities: (B, K, K) of each query (dim 1), mean over heads.

    Returns:
        (B, K) in [0, 1], 1 for the sharpest. The released code gives NaN for a whole clip if one
        probability is 0 or all tokens are alike; here probabilities are clamped, and tokens that
        are all alike are all salient.
    """
    p = probabilities.clamp(_TINY, 1 - _TINY)
    p = p / p.sum(dim=-1, keepdim=True)
    score = (p * p.log()).sum(dim=-1)
    score = score - score.amin(dim=-1, keepdim=True)
    highest = score.amax(dim=-1, keepdim=True)
    score = score / torch.where(highest > 0, highest, 1)
    score = (score - score.mean(dim=-1, keepdim=True)).clamp_min(0)
    salient = score / torch.where(highest > 0, score.amax(dim=-1, keepdim=True), 1)
    return torch.where(highest > 0, salient, 1.0)


@dataclass(frozen=True)
class VidTLDRReducer(Reducer):
    """Merges `schedule[i]` pairs in block i, or as many as there are."""

    schedule: tuple[int, ...]
    proportional = True

    def wants(self, layer: int) -> Wanted | None:
        """The attention, where this block merges anything."""
        return frozenset({PROBABILITIES}) if self.schedule[layer] else None

    def between(self, layer: int, x: Tokens, seen: Evidence) -> Tokens:
        """Match by the tokens themselves; weigh sources by their saliency."""
        r = min(self.schedule[layer], most_mergeable(x.num, x.prefix))
        if not r:
            return x
        assert seen.probabilities is not None
        pairs = match(x.values, r, x.prefix)
        weight = saliency(seen.probabilities).gather(1, pairs.source)
        return reduce(x, pairs.merged(by_position=True, weight=weight))


@dataclass(frozen=True)
class VidTLDR(Method):
    """Merges pairs in the first blocks; its setting is their number in the block that merges most.

    Attributes:
        shares: what each of the first blocks merges, in proportion, at least 1.
    """

    limit = MERGE_LIMIT
    shares: tuple[int, ...] = SHARES

    def __str__(self) -> str:
        if self.shares == SHARES:
            return "vid-tldr"
        return f"vid-tldr[{shares_name(self.shares)}]"

    def fits(self, backbone: Backbone) -> str | None:
        """Any backbone with as many blocks, which attend over all tokens of a clip."""
        if len(self.shares) > backbone.num_layers:
            return (
                f"{self} merges in the first {len(self.shares)} blocks, and there are "
                f"{backbone.num_layers}: ask for vid-tldr[blocks={backbone.num_layers}]"
            )
        return backbone.merging_refused

    def prepare(self, batch: ClipBatch) -> int:
        """The number of blocks."""
        return batch.backbone.num_layers

    def reducer(self, prepared: int, setting: int) -> VidTLDRReducer:
        """Merge so many in the first blocks, by their shares."""
        return VidTLDRReducer(self._schedule(setting, prepared))

    def knobs(self, flow: Flow) -> Sequence[int]:
        """From no pair to half of the tokens."""
        return range(most_mergeable(flow.num, flow.prefix) + 1)

    def counts(self, setting: int, flow: Flow) -> TokenCounts:
        """Fewer in the first blocks."""
        num, attention, mlp = flow.num, [], []
        for pairs in self._schedule(setting, flow.num_layers):
            attention.append(num)
            num -= min(pairs, most_mergeable(num, flow.prefix))
            mlp.append(num)
        return TokenCounts(tuple(attention), tuple(mlp), num)

    def overhead(self, setting: int, flow: Flow) -> float:
        """The products of both halves' values; the attention is there anyway."""
        return comparisons(self.counts(setting, flow)) * flow.hidden_size / 1e9

    def _schedule(self, setting: int, num_layers: int) -> tuple[int, ...]:
        pairs = [setting * share // max(self.shares) for share in self.shares]
        return tuple(pairs[layer] if layer < len(pairs) else 0 for layer in range(num_layers))
