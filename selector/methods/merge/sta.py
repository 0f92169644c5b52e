"""STA (Ding et al., "Prune Spatio-temporal Tokens by Semantic-aware Temporal Accumulation", 2023).

After three of the blocks the tokens are cut into consecutive groups (8, then 4, then 2), and every
group loses equally many: tokens that resemble those of the group before, accumulated over time, and
hold little. The groups are gone through forwards, backwards and forwards again.

Axes: B clips, K tokens, g tokens of a group, d channels of the averaged keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.backbones.base import Backbone
from pipeline.backbones.precision import in_full_precision
from pipeline.backbones.tokens import KEYS, Evidence, Reducer, Reduction, Tokens, Wanted, reduce
from selector.methods.base import ClipBatch, Method
from selector.methods.cost import Flow, TokenCounts
from selector.methods.merge.matching import cosines, match, mean_key

GROUPS = (8, 4, 2)
"""Groups of each stage; the first are the tubelets of 16 frames."""


def stages(num_layers: int) -> tuple[int, ...]:
    """The blocks after which tokens are dropped."""
    return tuple(stage * num_layers // len(GROUPS) for stage in range(len(GROUPS)))


@dataclass(frozen=True)
class STAReducer(Reducer):
    """Drops `r` tokens of every group, after each of the stages' blocks."""

    r: int
    stages: tuple[int, ...]

    def wants(self, layer: int) -> Wanted | None:
        """The keys of a stage's block."""
        return frozenset({KEYS}) if self.r and layer in self.stages else None

    def after(self, layer: int, x: Tokens, seen: Evidence) -> Tokens:
        """One stage."""
        assert seen.keys is not None
        stage = self.stages.index(layer)
        unit = cosines(mean_key(seen.keys))[:, x.prefix :]
        holds = in_full_precision(x.values).abs().sum(dim=-1)[:, x.prefix :]
        kept = keep_of_groups(unit, holds, GROUPS[stage], self.r, backwards=stage % 2 == 1)
        first = torch.arange(x.prefix, device=kept.device).expand(kept.shape[0], -1)
        return reduce(x, Reduction(torch.cat([first, kept + x.prefix], dim=1)))


def keep_of_groups(
    unit: Tensor, holds: Tensor, num_groups: int, r: int, *, backwards: bool
) -> Tensor:
    """Positions that stay, group by group in temporal order, (B, K - r * num_groups).

    Args:
        unit: (B, K, d), keys of length 1.
        holds: (B, K), how much each token holds: the sum of its absolute values.
        num_groups: consecutive groups of equal size g; r is at most g / 2.
        r: tokens dropped of each.
        backwards: go through the groups from the last to the first.
    """
    g = unit.shape[1] // num_groups
    groups = range(num_groups - 1, -1, -1) if backwards else range(num_groups)
    kept: dict[int, Tensor] = {}
    before = weight = None
    for group in groups:
        part = slice(group * g, (group + 1) * g)
        keys = unit[:, part]
        if before is None:
            order = _least_alike_first(keys)
            chosen, before = order[:, : g - r], keys  # the whole group, also what it drops
        else:
            alike = (keys @ before.transpose(1, 2)).softmax(dim=1)
            seen = (alike if weight is None else alike * weight[:, None]).sum(dim=2)
            order = (seen * (1 - _scaled(holds[:, part]))).sort(dim=1, stable=True).indices
            chosen = order[:, : g - r]
            weight = seen.gather(1, chosen)
            weight = weight / weight.sum(dim=1, keepdim=True)
            before = keys.gather(1, chosen[..., None].expand(-1, -1, keys.shape[2]))
        kept[group] = chosen + group * g
    return torch.cat([kept[group] for group in range(num_groups)], dim=1)


def _least_alike_first(keys: Tensor) -> Tensor:
    """The first group: odd positions, then even ones, the most like an odd one last."""
    pairs = match(keys, 0)
    return torch.cat([pairs.second, pairs.rest.flip(1)], dim=1)


def _scaled(values: Tensor) -> Tensor:
    """Min-max per row; constant rows are 0."""
    low, high = values.amin(dim=1, keepdim=True), values.amax(dim=1, keepdim=True)
    return (values - low) / torch.where(high > low, high - low, 1)


@dataclass(frozen=True)
class STA(Method):
    """Drops tokens in three stages; its setting is the number that each group loses."""

    whole_grid = True
    limit = "it drops at most half of a group: beyond that its rule is not defined"

    def __str__(self) -> str:
        return "sta"

    def fits(self, backbone: Backbone) -> str | None:
        """Groups must be whole spans of time, in three different blocks."""
        if backbone.merging_refused:
            return backbone.merging_refused
        if backbone.grid.t % GROUPS[0]:
            return (
                f"STA groups tokens by time into {GROUPS[0]} equal parts, and a clip has "
                f"{backbone.grid.t} tubelets here"
            )
        if backbone.prefix > backbone.off_grid:
            return "STA drops as many tokens of every group, and here the first token has to stay"
        if len(set(stages(backbone.num_layers))) < len(GROUPS):
            return f"STA acts after three different blocks, and there are {backbone.num_layers}"
        return None

    def prepare(self, batch: ClipBatch) -> int:
        """The number of blocks."""
        return batch.backbone.num_layers

    def reducer(self, prepared: int, setting: int) -> STAReducer:
        """Drop so many of each group."""
        return STAReducer(setting, stages(prepared))

    def knobs(self, flow: Flow) -> Sequence[int]:
        """To half of a group: beyond that the released code drops the first group's odd tokens too.

        What the paper defines ends there.
        """
        return range((flow.num - flow.off_grid) // GROUPS[0] // 2 + 1)

    def counts(self, setting: int, flow: Flow) -> TokenCounts:
        """Fewer after each stage's block."""
        lost = dict(zip(stages(flow.num_layers), GROUPS, strict=True))
        num, counts = flow.num, []
        for layer in range(flow.num_layers):
            counts.append(num)
            num -= setting * lost.get(layer, 0)
        return TokenCounts(tuple(counts), tuple(counts), num)

    def overhead(self, setting: int, flow: Flow) -> float:
        """Every group against the one before."""
        if not setting:
            return 0.0
        counts, products = self.counts(setting, flow).attention, 0
        for layer, num_groups in zip(stages(flow.num_layers), GROUPS, strict=True):
            g = (counts[layer] - flow.prefix) // num_groups
            products += (g + 1) // 2 * (g // 2) + g * g  # the first group, and the second
            products += (num_groups - 2) * g * (g - setting)
        return products * flow.head_size / 1e9
