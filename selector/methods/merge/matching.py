"""Bipartite soft matching (Bolya et al., "Token Merging", ICLR 2023, Section 3).

Tokens are cut into two halves; each of the first half finds its most similar one in the second, and
of these pairs the most similar are merged. Everything is sorted stably and equal similarities go to
the lower position, so that a clip's result depends on nothing but the clip.

Axes: B clips, K tokens, a and b tokens of the halves, d channels, R pairs merged.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.backbones.precision import in_full_precision
from pipeline.backbones.tokens import Merge, Reduction


class Pairs(NamedTuple):
    """The pairs of one matching; all are positions in the sequence.

    Attributes:
        source: int64 (B, R), the most similar first.
        target: int64 (B, R), their partners.
        rest: int64 (B, a - R), what is left of the first half, the most similar first.
        second: int64 (B, b), the second half.
        similar: (B, R), the similarity of each pair.
    """

    source: Tensor
    target: Tensor
    rest: Tensor
    second: Tensor
    similar: Tensor

    def merged(self, *, by_position: bool, weight: Tensor | None = None) -> Reduction:
        """Merge them. Tokens stay in ToMe's order, which decides the halves of the next block.

        Args:
            by_position: sort what is left of the first half by position, not by similarity.
            weight: (B, R), what each source counts for; None: its size.
        """
        return Reduction(self._keep(by_position), Merge(self.source, self.target, weight))

    def dropped(self, *, by_position: bool) -> Reduction:
        """Drop the sources."""
        return Reduction(self._keep(by_position))

    def _keep(self, by_position: bool) -> Tensor:
        rest = self.rest.sort(dim=-1).values if by_position else self.rest
        return torch.cat([rest, self.second], dim=1)


MERGE_LIMIT = "it merges at most half of a block's tokens"
"""As `Method.limit`."""


def most_mergeable(num: int, prefix: int) -> int:
    """The most pairs that one matching of `num` tokens by turns can merge, `prefix` untouched."""
    return max(0, (num - prefix) // 2)


def cosines(metric: Tensor) -> Tensor:
    """Unit vectors of (B, K, d), in float32 at least; zero vectors stay zero.

    In bfloat16 many similarities are equal, and the order among them would be luck.
    """
    return F.normalize(in_full_precision(metric), dim=-1)


def mean_key(keys: Tensor) -> Tensor:
    """The mean over heads of (B, H, K, d), (B, K, d), what most methods compare tokens by."""
    return in_full_precision(keys).mean(dim=1)


def by_turns(num: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Even and odd positions: ToMe's halves."""
    positions = torch.arange(num, device=device)
    return positions[::2], positions[1::2]


def match(metric: Tensor, r: int, prefix: int = 0) -> Pairs:
    """The `r` most similar pairs of even and odd positions.

    Args:
        metric: (B, K, d), what tokens are compared by, as cosines.
        r: pairs, at most `most_mergeable`.
        prefix: leading tokens that neither merge nor take anything in.
    """
    first, second = by_turns(metric.shape[1], metric.device)
    unit = cosines(metric)
    similar = unit[:, first] @ unit[:, second].transpose(1, 2)
    return pair(similar, first, second, r, prefix)


def pair(similar: Tensor, first: Tensor, second: Tensor, r: int, prefix: int = 0) -> Pairs:
    """The `r` best pairs of two halves.

    Args:
        similar: (B, a, b); changed where the prefix is concerned.
        first: int64 positions of the first half, (a,) or (B, a).
        second: of the second, (b,) or (B, b).
        r: pairs.
        prefix: as in `match`, for halves by turns.
    """
    if prefix:
        # The even ones of the prefix find nobody, and nobody finds the odd ones.
        similar[:, : (prefix + 1) // 2] = -torch.inf
        similar[:, :, : prefix // 2] = -torch.inf
    first, second = (half.expand(similar.shape[0], -1) for half in (first, second))
    best, partner = similar.max(dim=-1)
    best, order = best.sort(dim=-1, descending=True, stable=True)
    merged = order[:, :r]
    return Pairs(
        source=first.gather(1, merged),
        target=second.gather(1, partner.gather(1, merged)),
        rest=first.gather(1, order[:, r:]),
        second=second,
        similar=best[:, :r],
    )
