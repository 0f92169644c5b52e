"""Bipartite soft matching (Bolya et al., "Token Merging", ICLR 2023, Section 3).

Tokens are cut into two halves by turns; each of the first half finds its most similar one in the
second, and of these pairs the most similar are merged. Everything is sorted stably and equal
similarities go to the lower position, so that a clip's result depends on nothing but the clip.

Axes: B clips, K tokens, d channels of the metric, R pairs merged.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.backbones.tokens import Merge, Reduction


def most_mergeable(num: int, prefix: int) -> int:
    """The most pairs that one matching of `num` tokens can merge, `prefix` of them untouchable."""
    return max(0, (num - prefix) // 2)


def match(metric: Tensor, r: int, prefix: int = 0) -> Reduction:
    """Merge the `r` most similar pairs.

    Args:
        metric: (B, K, d), what tokens are compared by; compared as cosines, in float32 at least.
        r: pairs to merge, at most `most_mergeable`.
        prefix: leading tokens that neither merge nor take anything in.

    Returns:
        Tokens stay in ToMe's order, which decides the halves of the next block: what is left of the
        first half, by similarity descending (by position where there is a prefix, which must stay
        in front), then the second half.
    """
    first, second = _halves(metric.shape[1], metric.device)
    similar = _cosines(metric, first, second)
    # The even ones of the prefix find nobody, and nobody finds the odd ones.
    similar[:, : (prefix + 1) // 2] = -torch.inf
    similar[:, :, : prefix // 2] = -torch.inf
    best, partner = similar.max(dim=-1)
    order = best.sort(dim=-1, descending=True, stable=True).indices
    rest = order[:, r:]
    if prefix:
        rest = rest.sort(dim=-1).values
    keep = torch.cat([first[rest], second.expand(len(metric), -1)], dim=1)
    merged = order[:, :r]
    return Reduction(keep, Merge(first[merged], second[partner.gather(1, merged)]))


def _halves(num: int, device: torch.device) -> tuple[Tensor, Tensor]:
    positions = torch.arange(num, device=device)
    return positions[::2], positions[1::2]


def _cosines(metric: Tensor, first: Tensor, second: Tensor) -> Tensor:
    # In bfloat16 many similarities are equal, and the order among them would be luck.
    metric = metric.to(torch.promote_types(metric.dtype, torch.float32))
    metric = F.normalize(metric, dim=-1)
    return metric[:, first] @ metric[:, second].transpose(1, 2)
