"""Sampling tokens by value: between the best and an even lattice, and nothing left to chance."""

import numpy as np
import pytest
import torch

from pipeline.clips.grid import TokenGrid
from pipeline.errors import ConfigError
from selector.budgets.clip_budget import mass_of_tokens, tokens_for_mass
from selector.deploy.config import LiteConfig
from selector.deploy.model import LiteModel
from selector.methods.keep import top_tokens
from selector.methods.spread import break_ties, even_lattice, spread_offsets
from tests.lite_models import make_model, make_pixels

GRID = TokenGrid(8, 14, 14)


def test_no_spread_keeps_the_best():
    assert not spread_offsets(GRID, 0.0).any()


def test_a_large_spread_is_the_even_lattice_at_any_budget():
    logits = torch.randn(1, GRID.num_tokens, generator=torch.Generator().manual_seed(0))
    lattice = torch.from_numpy(even_lattice(GRID))[None]
    for k in (1, 157, 784):
        found = top_tokens(logits + spread_offsets(GRID, 1e6), k)
        assert torch.equal(found, top_tokens(lattice, k))


@pytest.mark.parametrize(("spread", "ratio"), [(1.0, 4.0), (2.0, 2.0)])
def test_tokens_are_kept_in_proportion_to_their_odds_and_evenly(spread, ratio):
    # Half of every frame has four times the odds of the other half.
    odds = torch.ones(GRID)
    odds[:, :, :7] = 4.0
    k = 98
    kept = top_tokens(odds.log().reshape(1, -1) + spread_offsets(GRID, spread), k)[0]
    mask = torch.zeros(GRID.num_tokens, dtype=torch.bool)
    mask[kept] = True
    mask = mask.reshape(GRID)
    better = int(mask[:, :, :7].sum())
    assert better == pytest.approx(k * ratio / (1 + ratio), abs=4)  # few of many: proportional
    per_frame = mask.sum(dim=(1, 2))
    assert per_frame.min() >= k / 8 - 4
    assert per_frame.max() <= k / 8 + 4


def test_the_lattice_is_even_along_every_axis():
    chosen = (even_lattice(GRID) > 0.75).reshape(GRID)
    for axes in ((1, 2), (0, 2), (0, 1)):
        shares = chosen.mean(axis=axes)
        assert np.abs(shares - 0.25).max() < 0.06


def test_mass_is_summed_in_the_order_of_the_ranking():
    scores = torch.tensor([[0.5, 0.25, 0.25, 0.0]])
    ranking = torch.tensor([[1.0, 4.0, 3.0, 2.0]])  # 1, 2, 3, 0
    assert mass_of_tokens(scores, ranking, (1, 2, 3, 4)).tolist() == [[0.25, 0.5, 0.5, 1.0]]
    assert tokens_for_mass(scores, ranking, 0.5).tolist() == [2]
    assert tokens_for_mass(scores, ranking, 0.51).tolist() == [4]


def test_a_models_spread_moves_the_choice_and_not_the_scores(tiny_backbone, tmp_path):
    plain = make_model(tiny_backbone)
    wide = make_model(tiny_backbone, LiteConfig(spread=1e6))
    pixels = make_pixels(3)
    best, even = plain(pixels, keep_ratio=0.5), wide(pixels, keep_ratio=0.5)
    torch.testing.assert_close(even.scores, best.scores)
    lattice = torch.from_numpy(even_lattice(wide.backbone.grid))[None]
    expected = torch.zeros(8, dtype=torch.bool)
    expected[top_tokens(lattice, 4)[0]] = True
    assert (even.kept == expected).all()
    assert not torch.equal(best.kept, even.kept)
    wide.save_pretrained(tmp_path)
    again = LiteModel.from_pretrained(tmp_path)
    assert torch.equal(again(pixels, keep_ratio=0.5).kept, even.kept)
    back = LiteModel.from_pretrained(tmp_path, spread=0.0)
    assert torch.equal(back(pixels, keep_ratio=0.5).kept, best.kept)


@pytest.mark.parametrize("spread", [-1.0, float("inf"), float("nan")])
def test_a_spread_that_is_none_is_refused(spread):
    with pytest.raises(ConfigError, match="spread must be at least 0"):
        LiteConfig(spread=spread)


def test_ties_go_by_the_lattice_and_nothing_else_moves():
    """Against sorting by (score, lattice) in plain Python."""
    grid = TokenGrid(4, 6, 6)
    scores = torch.randint(0, 5, (3, 144), generator=torch.Generator().manual_seed(0)).float()
    scores[2] = 0.0
    lattice = even_lattice(grid)
    ranks = break_ties(scores, grid)
    for clip in range(3):
        key = [(float(s), float(u)) for s, u in zip(scores[clip], lattice, strict=True)]
        expected = sorted(range(144), key=key.__getitem__, reverse=True)
        assert ranks[clip].argsort(descending=True).tolist() == expected
    distinct = torch.randperm(144, generator=torch.Generator().manual_seed(1))[None].float()
    for k in (1, 40, 143):
        assert torch.equal(top_tokens(break_ties(distinct, grid), k), top_tokens(distinct, k))


def test_a_still_scene_is_not_kept_by_its_first_frames_alone():
    grid = TokenGrid(8, 4, 4)
    kept = top_tokens(break_ties(torch.zeros(1, 128), grid), 32)[0]
    assert torch.bincount(kept // 16, minlength=8).min() >= 3


def test_scores_that_are_not_finite_stay_so():
    scores = torch.zeros(2, 128)
    scores[1, 5] = torch.nan
    assert break_ties(scores, TokenGrid(8, 4, 4)).isfinite().all(1).tolist() == [True, False]
