"""A reduction does to values, places, sizes and groups what was decided, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.backbones.tokens import Merge, Reduction, grid_tokens, reduce, unmerge


def numbered(batch: int = 1, num: int = 6, **prefix: int):
    """Token i of clip b has the value (10 b + i, 1)."""
    first = torch.arange(num) + 10.0 * torch.arange(batch)[:, None]
    return grid_tokens(torch.stack([first, torch.ones_like(first)], -1), **prefix)


def test_kept_tokens_keep_their_values_and_places_in_the_order_asked_for():
    keep = torch.tensor([[4, 0, 2], [1, 5, 3]])
    left = reduce(numbered(2), Reduction(keep))
    assert left.values[..., 0].tolist() == [[4, 0, 2], [11, 15, 13]]
    assert left.place.tolist() == [[4, 0, 2], [1, 5, 3]]
    assert left.size is None
    assert left.group is None


def test_a_merged_token_is_the_mean_of_its_parts_by_size():
    """By hand: 0 and 1 go into 3; then that one, of size 3, and 5 go into 2."""
    x = numbered(1).tracked()
    merge = Merge(torch.tensor([[0, 1]]), torch.tensor([[3, 3]]))
    once = reduce(x, Reduction(torch.tensor([[3, 2, 4, 5]]), merge))
    assert once.values[0, :, 0].tolist() == pytest.approx([4 / 3, 2, 4, 5])
    assert once.size.tolist() == [[3, 1, 1, 1]]
    assert once.place.tolist() == [[3, 2, 4, 5]]
    merge = Merge(torch.tensor([[0, 3]]), torch.tensor([[1, 1]]))
    twice = reduce(once, Reduction(torch.tensor([[2, 1]]), merge))
    assert twice.values[0, :, 0].tolist() == pytest.approx([4, (0 + 1 + 3 + 2 + 5) / 5])
    assert twice.size.tolist() == [[1, 5]]
    assert twice.group.tolist() == [[1, 1, 1, 1, 0, 1]]
    assert unmerge(twice)[0, :, 0].tolist() == pytest.approx([2.2, 2.2, 2.2, 2.2, 4, 2.2])


def test_weights_and_erasures():
    merge = Merge(
        source=torch.tensor([[0, 1]]),
        target=torch.tensor([[2, 3]]),
        weight=torch.tensor([[0.5, 0.0]]),
        erase=torch.tensor([[False, False, True, False]]),
    )
    left = reduce(numbered(1, 4), Reduction(torch.tensor([[2, 3]]), merge))
    # 0 replaces 2, whose own value and size are erased; 1 counts for nothing.
    assert left.values[0, :, 0].tolist() == [0, 3]
    assert left.size.tolist() == [[0.5, 1]]


def test_dropped_tokens_are_nobodys_and_have_no_value_to_give_back():
    left = reduce(numbered(1).tracked(), Reduction(torch.tensor([[5, 1]])))
    assert left.group.tolist() == [[-1, 1, -1, -1, -1, 0]]
    back = unmerge(left)[0, :, 0]
    assert back[[1, 5]].tolist() == [1, 5]
    assert back[[0, 2, 3, 4]].isnan().all()


def test_a_token_off_the_grid_has_no_place_and_no_group():
    x = numbered(1, 4, prefix=1, off_grid=1).tracked()
    assert x.place.tolist() == [[-1, 0, 1, 2]]
    assert x.group.tolist() == [[1, 2, 3]]
    assert x.on_grid[0, :, 0].tolist() == [1, 2, 3]
    left = reduce(x, Reduction(torch.tensor([[0, 3]])))
    assert left.place.tolist() == [[-1, 2]]
    assert left.group.tolist() == [[-1, -1, 1]]


@settings(max_examples=50, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**31), rounds=st.integers(1, 4))
def test_mass_and_mean_are_conserved_by_merging(seed: int, rounds: int):
    """The sum of value x size is that of all tokens, and sizes count the members of groups."""
    generator = torch.Generator().manual_seed(seed)
    x = grid_tokens(torch.randn(2, 12, 3, generator=generator, dtype=torch.float64)).tracked()
    whole = x.values.sum(1)
    for _ in range(rounds):
        if x.num < 2:
            break
        r = int(torch.randint(1, x.num, (), generator=generator))
        order = torch.stack([torch.randperm(x.num, generator=generator) for _ in range(2)])
        source, keep = order[:, :r], order[:, r:]
        pick = torch.randint(0, keep.shape[1], (2, r), generator=generator)
        x = reduce(x, Reduction(keep, Merge(source, keep.gather(1, pick))))
    assert x.size is not None
    torch.testing.assert_close((x.values * x.size[..., None]).sum(1), whole)
    for clip in range(2):
        members = torch.bincount(x.group[clip], minlength=x.num)
        assert x.size[clip].tolist() == members.tolist()


def test_low_precision_sums_in_float32():
    """257 equal tokens of 1 merge into one of 1; bfloat16 counts to 256 and no further."""
    x = grid_tokens(torch.ones(1, 600, 1, dtype=torch.bfloat16))
    source = torch.arange(1, 600)[None]
    left = reduce(x, Reduction(torch.tensor([[0]]), Merge(source, torch.zeros_like(source))))
    assert left.values.dtype == torch.bfloat16
    assert left.values.item() == 1
    assert left.size.item() == 600


def test_rows_take_everything_along():
    x = replace(numbered(3).tracked(), size=torch.ones(3, 6))
    some = x.rows(torch.tensor([2, 0]))
    assert some.values[:, 0, 0].tolist() == [20, 0]
    assert len(some) == len(some.size) == len(some.place) == len(some.group) == 2
