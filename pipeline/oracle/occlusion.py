"""An oracle that is no class-activation map: what is lost when a few tokens are left out.

Occlusion (Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks", 2014) for
tokens: the grid is cut into small boxes, and each box is worth the drop of the explained class's
logit when the model sees all tokens but those of the box. It needs no gradient and no layer, and it
measures directly what a selection does; the price is one forward pass per box (196 for 8 x 14 x 14
tokens in boxes of 2 x 2 x 2), where a class-activation map costs one in all.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from pipeline.backbones.base import Backbone
from pipeline.backbones.tokens import Reduction, Tokens, reduce
from pipeline.clips.grid import TokenGrid
from pipeline.oracle.base import OracleMaps, explained_classes

BOX = (2, 2, 2)


class Occlusion:
    """Values boxes of tokens; all tokens of a box share one value.

    Args:
        box: tokens of a box along time, height and width; smaller at the far edges of a grid that
            it does not divide.
    """

    def __init__(self, box: tuple[int, int, int] = BOX) -> None:
        self._box = box

    def values(self, backbone: Backbone, tokens: Tokens, labels: Tensor | None) -> OracleMaps:
        """One forward pass with all tokens, and one for each box without it.

        A token that the head reads is never left out: it shares the value of what is left of its
        box, and is worth nothing where it is a box by itself.
        """
        logits = backbone.run(tokens)
        explained = explained_classes(logits, labels)[:, None]
        whole = logits.gather(1, explained)
        drop = torch.zeros(len(tokens), backbone.grid.num_tokens, device=logits.device)
        for box in boxes(backbone.grid, self._box):
            left_out = torch.tensor(box, device=logits.device)
            without = _without(tokens, left_out)
            if without.num < tokens.num:
                found = backbone.run(without).gather(1, explained)
                drop[:, left_out] = whole - found
        return OracleMaps(cam=drop, logits=logits)


def boxes(grid: TokenGrid, box: tuple[int, int, int]) -> list[list[int]]:
    """Token numbers of each box; together they are the whole grid."""
    spans = [
        [range(start, min(start + side, length)) for start in range(0, length, side)]
        for length, side in zip(grid, box, strict=True)
    ]
    return [
        [(t * grid.h + y) * grid.w + x for t, y, x in itertools.product(*spans3)]
        for spans3 in itertools.product(*spans)
    ]


def _without(tokens: Tokens, left_out: Tensor) -> Tokens:
    stays = torch.ones(tokens.num, dtype=torch.bool, device=left_out.device)
    stays[left_out + tokens.off_grid] = False
    stays[: tokens.prefix] = True
    keep = stays.nonzero().squeeze(1)
    return reduce(tokens, Reduction(keep.expand(len(tokens), -1)))
