"""Pruning inside the blocks, by hand."""

from __future__ import annotations

import pytest
import torch

from pipeline.backbones.tokens import Evidence, grid_tokens
from selector.methods.cost import Flow
from selector.methods.merge.prune import (
    EViT,
    EViTReducer,
    RepresentationShift,
    ShiftReducer,
    num_left,
)


def test_evit_keeps_what_receives_most_in_the_order_of_the_clip():
    x = grid_tokens(torch.arange(5.0)[None, :, None])
    seen = Evidence(received=torch.tensor([[0.1, 0.4, 0.05, 0.3, 0.15]]))
    reducer = EViTReducer(400, (1,))
    assert reducer.wants(0) is None
    assert reducer.between(1, x, seen).place.tolist() == [[1, 3, 4]]


def test_the_prefix_stays_whatever_it_receives():
    x = grid_tokens(torch.arange(5.0)[None, :, None], prefix=1, off_grid=1)
    seen = Evidence(received=torch.tensor([[0.0, 0.4, 0.1, 0.3, 0.2]]))
    assert EViTReducer(500, (0,)).between(0, x, seen).place.tolist() == [[-1, 0, 2]]


def test_representation_shift_keeps_what_the_mlp_moved():
    x = grid_tokens(torch.zeros(1, 4, 2))
    moved = grid_tokens(torch.tensor([[[0.0, 1], [5, 0], [0, 0.5], [-3, -4.1]]]))
    reducer = ShiftReducer(500, (0,))
    reducer.between(0, x, Evidence())
    assert reducer.after(0, moved, Evidence()).place.tolist() == [[1, 3]]


def test_where_they_prune():
    assert EViT().pruning_blocks(12) == (3, 6, 9)  # the 4th, 7th and 10th
    assert RepresentationShift().pruning_blocks(12) == tuple(range(6))


@pytest.mark.parametrize(
    ("num", "setting", "prefix", "left"),
    [(10, 0, 0, 10), (10, 300, 0, 7), (11, 500, 1, 6), (3, 1000, 0, 1)],
)
def test_how_many_are_left(num, setting, prefix, left):
    assert num_left(num, setting, prefix) == left


def test_counts_by_hand():
    flow = Flow(100, 4)
    assert EViT().counts(500, flow).mlp == (100, 50, 25, 13)
    assert EViT().counts(500, flow).attention == (100, 100, 50, 25)
    assert RepresentationShift().counts(500, flow).attention == (100, 50, 25, 25)
