"""What flows through a backbone, and the one way in which a method may change it.

A method decides which tokens stay, in which order, and what merges into what (`Reduction`);
`reduce` alone applies it. So a method never touches values, places and sizes itself, and what must
hold of every reduction is tested once.

Axes: B clips, K tokens now, N tokens of the full grid, R merged tokens, H heads, D channels.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

KEYS = "keys"
"""(B, H, K, D / H): the block's keys, before any rotation by position."""
RECEIVED = "received"
"""(B, K) float32: attention probability received, mean over queries and heads."""
PROBABILITIES = "probabilities"
"""(B, K, K) float32: attention probabilities of each query (dim 1), mean over heads."""
Wanted = frozenset[str]
NOTHING: Wanted = frozenset()


@dataclass(frozen=True)
class Tokens:
    """Some tokens of some clips.

    Attributes:
        values: (B, K, D).
        place: int64 (B, K), each token's number on the grid, -1 for one that lies on none (CLS).
        size: (B, K) float32 or wider, how many tokens were merged into each; None: one each.
        prefix: leading tokens that no method may drop, because the head reads them.
        off_grid: how many of those lie on no grid.
        group: int64 (B, N), where in `values` each token of the grid went, -1 where it was dropped;
            None where nobody asked (see `tracked`).
    """

    values: Tensor
    place: Tensor
    size: Tensor | None = None
    prefix: int = 0
    off_grid: int = 0
    group: Tensor | None = None

    def __len__(self) -> int:
        return len(self.values)

    @property
    def num(self) -> int:
        """Tokens per clip now, K."""
        return self.values.shape[1]

    @property
    def on_grid(self) -> Tensor:
        """Values of the tokens that lie on the grid, (B, K - off_grid, D)."""
        return self.values[:, self.off_grid :]

    def rows(self, which: Tensor) -> Tokens:
        """Some of the clips, by int64 or bool index."""
        return replace(
            self,
            values=self.values[which],
            place=self.place[which],
            size=None if self.size is None else self.size[which],
            group=None if self.group is None else self.group[which],
        )

    def tracked(self) -> Tokens:
        """The same, from now on with `group`; to be called on all tokens of the grid."""
        where = torch.arange(self.num - self.off_grid, device=self.place.device) + self.off_grid
        return replace(self, group=where.expand(self.values.shape[0], -1))


def grid_tokens(values: Tensor, *, prefix: int = 0, off_grid: int = 0) -> Tokens:
    """All tokens of a clip as `Backbone.embed` gives them: off the grid first, then row-major.

    Args:
        values: (B, off_grid + N, D).
        prefix: see `Tokens`.
        off_grid: see `Tokens`.
    """
    place = torch.arange(values.shape[1], device=values.device) - off_grid
    place = place.clamp_min(-1).expand(values.shape[0], -1)
    return Tokens(values, place, prefix=prefix, off_grid=off_grid)


class Evidence(NamedTuple):
    """What a block's attention shows to a method that asked; fields as the constants above."""

    keys: Tensor | None = None
    received: Tensor | None = None
    probabilities: Tensor | None = None


class Merge(NamedTuple):
    """Which tokens are added to which; positions are those before the reduction.

    Attributes:
        source: int64 (B, R), tokens that do not stay.
        target: int64 (B, R), tokens that stay and take them in; several may share one.
        weight: (B, R), what each source's size counts for; None: all of it.
        erase: bool (B, K), targets whose own value and size go before the sources come.
    """

    source: Tensor
    target: Tensor
    weight: Tensor | None = None
    erase: Tensor | None = None


class Reduction(NamedTuple):
    """What a method decided.

    Attributes:
        keep: int64 (B, K'), positions that stay, in their new order.
        merge: what becomes of others; None drops them.
    """

    keep: Tensor
    merge: Merge | None = None


def reduce(x: Tokens, reduction: Reduction) -> Tokens:
    """Apply a decision to values, places, sizes and groups.

    A merged token is the mean of its parts, weighted by their sizes, and has its target's place.
    """
    keep, merge = reduction.keep, reduction.merge
    rows = torch.arange(keep.shape[0], device=keep.device)[:, None]
    values, place = x.values[rows, keep], x.place[rows, keep]
    size = None if x.size is None else x.size[rows, keep]
    # Where each old position went, -1 where it was dropped.
    went = None
    if merge is not None or x.group is not None:
        went = torch.full_like(x.place, -1)
        went = went.scatter(
            1, keep, torch.arange(keep.shape[1], device=keep.device).expand_as(keep)
        )
    if merge is not None:
        assert went is not None
        target = went.gather(1, merge.target)
        values, size = _merge(x, merge, keep, target, values, size)
        went = went.scatter(1, merge.source, target)
    group = x.group
    if group is not None:
        assert went is not None
        at = group.clamp_min(0)
        lost = group < 0
        if merge is not None and merge.erase is not None:
            lost = lost | merge.erase.gather(1, at)
        group = torch.where(lost, -1, went.gather(1, at))
    return replace(x, values=values, place=place, size=size, group=group)


def _merge(
    x: Tokens, merge: Merge, keep: Tensor, target: Tensor, values: Tensor, size: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Values and sizes after merging; `target` counts in the new order."""
    if size is None or x.size is None:
        # Sums of many tokens: in float32 at least.
        precise = torch.promote_types(values.dtype, torch.float32)
        size = torch.ones_like(values[..., 0], dtype=precise)
        added = torch.ones_like(merge.source, dtype=precise)
    else:
        added = x.size.gather(1, merge.source)
    if merge.weight is not None:
        added = added * merge.weight.to(added.dtype)
    if merge.erase is not None:
        size = size.masked_fill(merge.erase.gather(1, keep), 0)
    rows = torch.arange(keep.shape[0], device=keep.device)[:, None]
    coming = x.values[rows, merge.source] * added[..., None]
    total = size.scatter_add(1, target, added)
    summed = (values * size[..., None]).scatter_add(1, target[..., None].expand_as(coming), coming)
    return (summed / total[..., None]).to(values.dtype), total


def unmerge(x: Tokens) -> Tensor:
    """What each token of the grid became part of, (B, N, D); NaN where it was dropped.

    Args:
        x: with `group`.
    """
    assert x.group is not None
    index = x.group.clamp_min(0)[..., None].expand(-1, -1, x.values.shape[-1])
    return x.values.gather(1, index).masked_fill((x.group < 0)[..., None], torch.nan)


class Reducer:
    """What happens to the tokens of one batch on their way; by itself, nothing.

    A layer in which a reducer has no part runs as one fused block.

    Attributes:
        proportional: whether attention weighs a key by its token's size from the next block on
            (ToMe's proportional attention).
    """

    proportional: bool = False

    def split(self) -> Iterable[tuple[Tensor, Reducer]] | None:
        """Clips of the batch, int64 (b,), and the reducer that is theirs; None: all have this one.

        For clips that are left with other numbers of tokens than their neighbours: those with
        equally many run together, and none is padded.
        """
        return None

    def wants(self, layer: int) -> Wanted | None:
        """What block `layer` must show to `between` and `after`; None: no part in this block."""
        return None

    def before(self, x: Tokens) -> Tokens:
        """Before the first block."""
        return x

    def between(self, layer: int, x: Tokens, seen: Evidence) -> Tokens:
        """After a block's attention and its residual, before its MLP."""
        return x

    def after(self, layer: int, x: Tokens, seen: Evidence) -> Tokens:
        """After a whole block."""
        return x
