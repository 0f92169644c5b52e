"""Attention within segments of a clip's tokens: those of one frame, or of one column through time.

Segments may be of any sizes, each clip its own: they are laid out as rows as long as the longest,
and a mask hides what is left empty.

Axes: B clips, K tokens, S segments, L tokens of the longest, H heads, d channels of a head.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Segments:
    """Where each token of a batch goes in a layout of rows.

    Attributes:
        where: int64 (B, K), the token's place in the S L of its clip.
        num: rows of a clip, S.
        length: of a row, L.
        filled: bool (B, S, L), which places hold a token; None where that need not be known,
            because every row is full, or empty and of no account.
    """

    where: Tensor
    num: int
    length: int
    filled: Tensor | None

    def attend(
        self, qkv: Tensor, num_heads: int, scale: float, first: Tensor | None, dropout: float
    ) -> Tensor:
        """What each token takes from its own segment.

        Args:
            qkv: (B, K, 3 H d), queries, keys and values.
            num_heads: H.
            scale: of the products of queries and keys.
            first: (B, 1, 3 H d), of a token that stands in every segment beside the others.
            dropout: as in `pipeline.backbones.attention.attend`.

        Returns:
            (B, K, H d); with `first`, (B, 1 + K, H d), in front what it takes from its segments on
            average.
        """
        b, rows = len(qkv), torch.arange(len(qkv), device=qkv.device)[:, None]
        laid = qkv.new_zeros(b, self.num * self.length, qkv.shape[-1])
        laid = laid.index_put((rows, self.where), qkv).unflatten(1, (self.num, self.length))
        filled = self.filled
        if first is not None:
            laid = torch.cat([first[:, None].expand(-1, self.num, -1, -1), laid], dim=2)
            filled = None if filled is None else F.pad(filled, (1, 0), value=True)
        query, key, value = laid.unflatten(-1, (3, num_heads, -1)).permute(3, 0, 1, 4, 2, 5)
        mask = None
        if filled is not None:
            # An empty row sees itself: nobody asks what, but it must be a number.
            mask = (filled | ~filled.any(dim=2, keepdim=True))[:, :, None, None]
            mask = mask.flatten(0, 1)
        context = F.scaled_dot_product_attention(
            query.flatten(0, 1),
            key.flatten(0, 1),
            value.flatten(0, 1),
            attn_mask=mask,
            dropout_p=dropout,
            scale=scale,
        )
        taken = context.transpose(1, 2).flatten(2).unflatten(0, (b, self.num))
        if first is None:
            return taken.flatten(1, 2)[rows, self.where]
        own = taken[:, :, 1:].flatten(1, 2)[rows, self.where]
        return torch.cat([taken[:, :, 0].mean(dim=1, keepdim=True), own], dim=1)


def segments_of(number: Tensor, num: int, longest: int, *, all_count: bool) -> Segments:
    """Lay out tokens by the number of their segment.

    Where there are no data to look at (on the meta device, which costs are counted on), equally
    many tokens are assumed: in all segments where all count, else in as few as hold them.

    Args:
        number: int64 (B, K), 0..num - 1.
        num: segments there are.
        longest: the most tokens that one can have.
        all_count: keep a row for a segment without a token; otherwise rows are only as many as
            segments with one.
    """
    k = number.shape[1]
    if number.is_meta:
        length = -(-k // num) if all_count else min(k, longest)
        rows = num if all_count else -(-k // length)
        return Segments(torch.empty_like(number), rows, length, None)
    counts = _counts(number, num)
    if torch.compiler.is_compiling():  # shapes must not depend on data
        length, full = min(k, longest), False
    else:
        if not all_count:
            used = counts > 0
            number = (used.cumsum(1) - 1).gather(1, number)
            num = int(used.sum(1).max())
            counts = _counts(number, num)
        length = int(counts.max())
        full = bool(((counts == length) | ((counts == 0) & (not all_count))).all())
    order = number.argsort(dim=1, stable=True)
    start = (counts.cumsum(1) - counts).gather(1, number.gather(1, order))
    rank = torch.arange(k, device=number.device) - start
    rank = torch.empty_like(rank).scatter(1, order, rank)
    filled = torch.arange(length, device=number.device) < counts[..., None]
    return Segments(number * length + rank, num, length, None if full else filled)


def _counts(number: Tensor, num: int) -> Tensor:
    return number.new_zeros(len(number), num).scatter_add(1, number, torch.ones_like(number))
