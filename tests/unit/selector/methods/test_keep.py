"""Which tokens a ranking keeps, and how many: worked out by hand."""

from __future__ import annotations

import pytest
import torch

from pipeline.backbones.tokens import Tokens, grid_tokens
from pipeline.errors import ConfigError
from selector.methods.keep import best_tokens, kept_counts, num_kept, of_equal_counts, top_tokens

SCORES = torch.tensor([[0.1, 0.9, 0.3, 0.7, 0.5], [0.5, 0.1, 0.9, 0.3, 0.7]])


def make_tokens(*, prefix: int = 0, off_grid: int = 0) -> Tokens:
    """Five tokens of the grid in each of two clips."""
    return grid_tokens(torch.zeros(2, off_grid + 5, 1), prefix=prefix, off_grid=off_grid)


def test_the_best_come_in_the_order_of_the_grid():
    assert best_tokens(make_tokens(), SCORES, 2).keep.tolist() == [[1, 3], [2, 4]]
    assert best_tokens(make_tokens(), SCORES, 2).merge is None


def test_a_token_on_the_grid_that_the_head_reads_is_one_of_those_kept():
    x = make_tokens(prefix=1)
    given = SCORES.clone()
    assert best_tokens(x, given, 2).keep.tolist() == [[0, 1], [0, 2]]
    assert torch.equal(given, SCORES)  # the caller's scores are as they were
    x = make_tokens(prefix=2)
    assert best_tokens(x, SCORES, 3).keep.tolist() == [[0, 1, 3], [0, 1, 2]]


def test_tokens_off_the_grid_come_first_and_are_not_counted():
    x = make_tokens(prefix=1, off_grid=1)
    assert best_tokens(x, SCORES, 2).keep.tolist() == [[0, 2, 4], [0, 3, 5]]
    x = make_tokens(prefix=3, off_grid=2)  # two off the grid, and the first one on it
    assert best_tokens(x, SCORES, 2).keep.tolist() == [[0, 1, 2, 3], [0, 1, 2, 4]]


@pytest.mark.parametrize("off_grid", [0, 2])
def test_of_what_is_left_the_best_by_their_place(off_grid):
    """Places 4, 1, 3 are left, in this order: scores .5, .9, .7 and .7, .1, .3."""
    place = torch.tensor([[-1] * off_grid + [4, 1, 3]]).expand(2, -1)
    x = Tokens(torch.zeros(2, off_grid + 3, 1), place, prefix=off_grid, off_grid=off_grid)
    first = list(range(off_grid))
    wanted = [[*first, off_grid + 1, off_grid + 2], [*first, off_grid, off_grid + 2]]
    assert best_tokens(x, SCORES, 2).keep.tolist() == wanted
    everything = list(range(off_grid + 3))
    assert best_tokens(x, SCORES, 4).keep.tolist() == [everything] * 2  # more than are left


def test_equal_scores_go_to_the_lower_place():
    scores = torch.zeros(1, 200)
    scores[0, 150] = 1
    assert top_tokens(scores, 4).tolist() == [[0, 1, 2, 150]]


def test_one_ratio_is_for_all_and_several_are_for_each():
    assert kept_counts(10, 0.5, 3) == 5
    assert kept_counts(10, [0.5, 0.25, 1.0], 3) == [5, 2, 10]
    assert kept_counts(10, torch.tensor(0.5), 3) == 5
    assert kept_counts(10, torch.tensor([0.5, 0.25, 1.0]), 3) == [5, 2, 10]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_tensors_ratio_is_the_decimal_it_was_made_from(dtype):
    """0.7 is 0.69999 in binary at some widths, and int(10 * 0.69999) is 6."""
    wanted = [7, 3, 9] if dtype is not torch.bfloat16 else None
    ratios = torch.tensor([0.7, 0.3, 0.9], dtype=dtype)
    found = kept_counts(10, ratios, 3)
    # bfloat16 has no short decimals: 0.7 is 0.69921875 there, and says so.
    assert found == (wanted or [int(10 * float(r) + 1e-9) for r in ratios])


@pytest.mark.parametrize(
    ("ratio", "message"),
    [
        ([0.5, 0.5], "one for all clips or one for each, got 2 for 3 clips"),
        ([0.5, 0.5, 0.0], r"must lie in \(0, 1\], got 0.0"),
        (True, "must be a number in .*, got True"),
        ("0.5", "must be a number in .*, got '0.5'"),
        (None, "must be a number in .*, got None"),
        (float("nan"), "must lie in"),
    ],
)
def test_what_is_no_ratio_is_refused(ratio, message):
    with pytest.raises(ConfigError, match=message):
        kept_counts(10, ratio, 3)


def test_the_count_is_the_papers_and_never_none():
    assert [num_kept(100, r) for r in (0.29, 0.57, 1, 0.001)] == [29, 57, 100, 1]
    assert num_kept(1568, 0.1) == 156


def test_clips_of_one_count_are_one_batch_and_every_clip_is_in_one():
    found = [(n, rows.tolist()) for n, rows in of_equal_counts(torch.tensor([5, 2, 5, 9, 2]))]
    assert found == [(2, [1, 4]), (5, [0, 2]), (9, [3])]
    assert [rows.tolist() for _, rows in of_equal_counts(torch.tensor([7]))] == [[0]]
