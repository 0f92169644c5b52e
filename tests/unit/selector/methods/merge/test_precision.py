"""A decision follows from the numbers a model shows, and no rounding of ours is added to them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from pipeline.backbones.tokens import Evidence, grid_tokens
from selector.methods.merge.pitome import PiToMeReducer
from selector.methods.merge.prune import ShiftReducer
from selector.methods.merge.sta import STAReducer
from selector.methods.merge.tome import ToMeReducer
from selector.methods.merge.vid_tldr import VidTLDRReducer

REDUCERS = {
    "tome": ToMeReducer((60,)),
    "pitome": PiToMeReducer(400, 1),
    "vid-tldr": VidTLDRReducer((60,)),
    "sta": STAReducer(10, (0, 1, 2)),
    "repshift": ShiftReducer(500, (0,)),
}


def numbers(*shape: int, seed: int) -> torch.Tensor:
    """That bfloat16 has exactly; sums of theirs it rounds, and many tie."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).bfloat16()


@pytest.mark.parametrize("name", REDUCERS)
@pytest.mark.parametrize("precise", [torch.float32, torch.float64])
def test_tokens_in_half_precision_fare_as_the_same_numbers_in_full(name, precise):
    reducer, keys = REDUCERS[name], numbers(2, 3, 160, 16, seed=0)
    first, moved = numbers(2, 160, 64, seed=1), numbers(2, 160, 64, seed=2)
    maps = torch.rand(2, 160, 160, generator=torch.Generator().manual_seed(3)).softmax(-1)

    def places(dtype: torch.dtype) -> torch.Tensor:
        x, seen = grid_tokens(first.to(dtype)), Evidence(keys.to(dtype), probabilities=maps)
        x = reducer.between(0, x, seen)
        if name == "repshift":
            x = replace(x, values=moved.to(dtype))
        return reducer.after(0, x, seen).place

    assert torch.equal(places(torch.bfloat16), places(precise))


def test_shifts_in_double_precision_are_told_apart_in_it():
    reducer, x = ShiftReducer(500, (0,)), grid_tokens(torch.zeros(1, 2, 1).double())
    reducer.between(0, x, Evidence())
    moved = replace(x, values=torch.tensor([[[1.0], [1 + 1e-12]]], dtype=torch.float64))
    assert reducer.after(0, moved, Evidence()).place.tolist() == [[1]]
