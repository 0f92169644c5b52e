"""PiToMe (Tran et al., "Accelerating Transformers with Spectrum-Preserving Token Merging", 2024).

A token's energy says how many others are like it. Tokens of high energy lie in large groups and may
merge; the others, which stand alone, are protected.

Axes: B clips, K tokens, d channels of the averaged keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.backbones.base import Backbone
from pipeline.backbones.tokens import KEYS, Evidence, Reducer, Reduction, Tokens, Wanted, reduce
from selector.methods.base import ClipBatch, Method
from selector.methods.cost import Flow, TokenCounts
from selector.methods.merge.matching import MERGE_LIMIT, Pairs, cosines, mean_key, pair

STEPS = 1000
"""A setting counts in thousandths of the tokens that each block merges."""
_MARGIN = 0.75
"""The margin of the first block; it falls linearly to 0 behind the last."""


def num_merged(num: int, setting: int, prefix: int = 0) -> int:
    """Tokens that one block of `num` merges: the paper's `N - N q`, at most half of them."""
    loose = num - prefix
    return min(loose * setting // STEPS, loose // 2)


def energies(similar: Tensor, layer: int, num_layers: int) -> Tensor:
    """The mean over all tokens of ELU(cosine - margin), (B, K, K) -> (B, K)."""
    return F.elu(similar - _MARGIN * (1 - layer / num_layers)).mean(dim=-1)


@dataclass(frozen=True)
class PiToMeReducer(Reducer):
    """Merges a share of the tokens in every block."""

    setting: int
    num_layers: int
    plain: bool = False
    proportional: bool = False

    def wants(self, layer: int) -> Wanted | None:
        """The keys."""
        return frozenset({KEYS}) if self.setting else None

    def between(self, layer: int, x: Tokens, seen: Evidence) -> Tokens:
        """Rank by energy, pair and merge."""
        r = num_merged(x.num, self.setting, x.prefix)
        if not r:
            return x
        assert seen.keys is not None
        unit = cosines(mean_key(seen.keys)[:, x.prefix :])
        similar = unit @ unit.transpose(1, 2)
        energy = energies(similar, layer, self.num_layers)
        order = energy.sort(dim=-1, descending=True, stable=True).indices
        if self.plain or layer >= (self.num_layers + 1) // 2:
            reduction = _most_energetic(similar, order, r)
        else:
            pairs = _pair(similar, order[:, ::2], order[:, 1::2], r)
            reduction = pairs.merged(by_position=False)
        return reduce(x, _behind_the_prefix(reduction, x.prefix))


def _most_energetic(similar: Tensor, order: Tensor, r: int) -> Reduction:
    """The 2 r tokens of highest energy merge in pairs; the others are protected."""
    first, second = order[:, : 2 * r : 2], order[:, 1 : 2 * r : 2]
    pairs = _pair(similar, first, second, r)
    merged = pairs.merged(by_position=False).merge
    return Reduction(torch.cat([order[:, 2 * r :], second], dim=1), merged)


def _pair(similar: Tensor, first: Tensor, second: Tensor, r: int) -> Pairs:
    rows = torch.arange(similar.shape[0], device=similar.device)[:, None, None]
    return pair(similar[rows, first[:, :, None], second[:, None]], first, second, r)


def _behind_the_prefix(reduction: Reduction, prefix: int) -> Reduction:
    """A decision about the tokens after the prefix, in positions of the whole sequence."""
    if not prefix:
        return reduction
    assert reduction.merge is not None
    keep = reduction.keep + prefix
    first = torch.arange(prefix, device=keep.device).expand(keep.shape[0], -1)
    merge = reduction.merge._replace(
        source=reduction.merge.source + prefix, target=reduction.merge.target + prefix
    )
    return Reduction(torch.cat([first, keep], dim=1), merge)


@dataclass(frozen=True)
class PiToMe(Method):
    """Merges the same share of the tokens in every block; its setting is that share.

    Attributes:
        plain: the paper's rule in all blocks. Otherwise, as its code does by default, the first
            half of the blocks merges the most similar pairs among all tokens.
        proportional: attention weighs a merged token by its size.
    """

    limit = MERGE_LIMIT
    plain: bool = False
    proportional: bool = False

    def __str__(self) -> str:
        options = ["plain"] if self.plain else []
        options += ["prop-attn"] if self.proportional else []
        return "pitome" + (f"[{','.join(options)}]" if options else "")

    def fits(self, backbone: Backbone) -> str | None:
        """Any backbone whose blocks attend over all tokens of a clip."""
        return backbone.merging_refused

    def prepare(self, batch: ClipBatch) -> int:
        """The number of blocks."""
        return batch.backbone.num_layers

    def reducer(self, prepared: int, setting: int) -> PiToMeReducer:
        """Merge that share."""
        return PiToMeReducer(setting, prepared, self.plain, self.proportional)

    def knobs(self, flow: Flow) -> Sequence[int]:
        """From none to half of the tokens a block."""
        return range(STEPS // 2 + 1)

    def counts(self, setting: int, flow: Flow) -> TokenCounts:
        """Geometrically fewer."""
        num, attention, mlp = flow.num, [], []
        for _ in range(flow.num_layers):
            attention.append(num)
            num -= num_merged(num, setting, flow.prefix)
            mlp.append(num)
        return TokenCounts(tuple(attention), tuple(mlp), num)

    def overhead(self, setting: int, flow: Flow) -> float:
        """All tokens are compared with all."""
        counts = self.counts(setting, flow)
        both = zip(counts.attention, counts.mlp, strict=True)
        products = sum((n - flow.prefix) ** 2 for n, left in both if left < n)
        return products * flow.head_size / 1e9
