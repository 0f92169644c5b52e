"""STA: by loops over single tokens, and against the numbers of its authors' code."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from selector.methods.cost import CostModel, Flow
from selector.methods.merge.sta import STA, STAReducer, keep_of_groups, stages
from tests.weightless import weightless_videomae_b


def by_loops(unit, holds, num_groups: int, r: int, backwards: bool) -> list[int]:
    """One clip, token by token."""
    g = len(unit) // num_groups
    kept: dict[int, list[int]] = {}
    before: list[int] = []
    weight: list[float] = []
    for group in list(range(num_groups))[:: -1 if backwards else 1]:
        own = [group * g + i for i in range(g)]
        if not before:
            even, odd = own[::2], own[1::2]
            best = {a: max(float(unit[a] @ unit[b]) for b in odd) for a in even}
            order = odd + sorted(even, key=lambda a: (best[a], -a))
            kept[group], before = order[: g - r], own
            continue
        seen = dict.fromkeys(own, 0.0)
        for j, b in enumerate(before):
            likes = {a: math.exp(float(unit[a] @ unit[b])) for a in own}
            for a in own:
                share = likes[a] / sum(likes.values())
                seen[a] += share * (weight[j] if weight else 1.0)
        low, high = min(float(holds[a]) for a in own), max(float(holds[a]) for a in own)
        score = {a: seen[a] * (1 - (float(holds[a]) - low) / (high - low)) for a in own}
        before = kept[group] = sorted(own, key=lambda a: (score[a], a))[: g - r]
        total = sum(seen[a] for a in before)
        weight = [seen[a] / total for a in before]
    return [a for group in range(num_groups) for a in kept[group]]


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize(("num_groups", "g", "r"), [(2, 6, 3), (4, 5, 2), (8, 4, 1)])
def test_groups_lose_what_the_time_before_had(num_groups, g, r, backwards):
    generator = torch.Generator().manual_seed(g)
    unit = torch.randn(2, num_groups * g, 6, generator=generator, dtype=torch.float64)
    unit = unit / unit.norm(dim=-1, keepdim=True)
    holds = torch.rand(2, num_groups * g, generator=generator, dtype=torch.float64)
    found = keep_of_groups(unit, holds, num_groups, r, backwards=backwards)
    for clip in range(2):
        expected = by_loops(unit[clip], holds[clip], num_groups, r, backwards)
        assert found[clip].tolist() == expected


def test_tokens_that_hold_equally_much_are_no_matter():
    unit = torch.ones(1, 16, 3) / 3**0.5
    assert keep_of_groups(unit, torch.ones(1, 16), 8, 1, backwards=False).shape == (1, 8)


def test_counts_and_cost_of_videomae_b_are_the_published_ones():
    costs = CostModel(weightless_videomae_b())
    counts = STA().counts(48, costs.flow)
    assert [counts.attention[0], counts.attention[1], counts.attention[5], counts.head] == [
        1568,
        1184,
        992,
        896,
    ]
    for r, gmacs in {15: 159.1, 46: 118.2, 48: 115.7, 73: 86.0, 78: 80.4, 98: 59.1}.items():
        assert costs.at(STA().counts(r, costs.flow)).total == pytest.approx(gmacs, abs=0.06)
    assert STA().knobs(costs.flow)[-1] == 98


def test_three_stages():
    assert stages(12) == (0, 4, 8)
    assert stages(6) == (0, 2, 4)
    assert STA().counts(2, Flow(64, 3)).attention == (64, 48, 40)


@pytest.mark.parametrize("r", [0, 1, 4, 6, 12])
def test_it_equals_the_authors_code(peers_dir, run_reference, r):
    known = np.load(peers_dir / "sta" / f"r{r}.npz")
    left, logits = run_reference(STAReducer(r, stages(6)))
    if r:
        assert np.array_equal(left.place, known["kept_original_4"])
    np.testing.assert_allclose(logits, known["logits"], rtol=0, atol=1e-9)
