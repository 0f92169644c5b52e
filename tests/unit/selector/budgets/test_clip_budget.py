"""LITE++'s rule and the mass budget, on numbers one can check by eye."""

import json

import pytest
import torch

from pipeline.errors import ConfigError
from selector.budgets.clip_budget import (
    MassBudget,
    ThresholdBudget,
    budget_from_dict,
    budget_to_dict,
    mass_of_tokens,
    small_ratio,
    tokens_for_mass,
)

RULE = ThresholdBudget(base_ratio=0.5, small_ratio=0.3, alpha=0.2, beta=0.8)


def test_only_the_easy_and_the_hopeless_get_the_small_budget():
    confidence = torch.tensor([0.0, 0.19, 0.2, 0.5, 0.8, 0.81, 1.0])
    small, base = 470, 784
    assert RULE.counts(confidence, 1568).tolist() == [small, small, base, base, base, small, small]


def test_a_confidence_that_is_not_a_number_gets_the_base_budget():
    assert RULE.counts(torch.tensor([torch.nan]), 1568).tolist() == [784]


@pytest.mark.parametrize(("base", "small"), [(0.9, 0.3), (0.7, 0.3), (0.5, 0.3), (0.3, 0.2)])
def test_the_small_budget_is_the_papers(base, small):
    assert small_ratio(base) == small


def test_the_fewest_tokens_that_hold_a_share():
    scores = torch.tensor([[0.125, 0.5, 0.0, 0.375], [0.25, 0.25, 0.25, 0.25]])
    assert tokens_for_mass(scores, scores, 0.5).tolist() == [1, 2]
    assert tokens_for_mass(scores, scores, 0.51).tolist() == [2, 3]
    assert tokens_for_mass(scores, scores, 1.0).tolist() == [3, 4]


def test_several_shares_at_once_agree_with_one_at_a_time():
    scores = torch.rand(5, 40, generator=torch.Generator().manual_seed(0))
    shares = torch.tensor([0.1, 0.5, 0.99, 1.0], dtype=torch.float64)
    together = tokens_for_mass(scores, scores, shares)
    assert together.shape == (5, 4)
    for column, share in enumerate(shares):
        assert (
            together[:, column].tolist() == tokens_for_mass(scores, scores, float(share)).tolist()
        )


def test_the_share_is_held_and_with_one_token_less_it_is_not():
    scores = torch.rand(20, 100, generator=torch.Generator().manual_seed(1))
    for row, count in zip(
        scores.double(), tokens_for_mass(scores, scores, 0.6).tolist(), strict=True
    ):
        best = row.sort(descending=True).values
        assert best[:count].sum() >= 0.6 * row.sum() * (1 - 1e-12)
        assert best[: count - 1].sum() < 0.6 * row.sum()


def test_the_mass_of_the_best_tokens():
    scores = torch.tensor([[0.125, 0.5, 0.0, 0.375], [0.25, 0.25, 0.25, 0.25], [0, 0, 0, 0]])
    expected = [[0.5, 0.875, 1.0], [0.25, 0.5, 1.0], [1.0, 1.0, 1.0]]
    assert mass_of_tokens(scores, scores, (1, 2, 4)).tolist() == expected


def test_the_smallest_level_that_holds_a_share_is_the_mass_budgets():
    scores = torch.rand(50, 40, generator=torch.Generator().manual_seed(2))
    budget = MassBudget(mass=0.7, levels=(0.1, 0.3, 0.5, 0.9))
    counts = torch.tensor(budget.level_counts(40))
    level = (mass_of_tokens(scores, scores, counts.tolist()) < 0.7).sum(dim=1).clamp(max=3)
    assert torch.equal(counts[level], budget.counts(scores, scores))


def test_a_clip_without_any_score_keeps_the_least():
    assert tokens_for_mass(torch.zeros(1, 4), torch.zeros(1, 4), 0.9).tolist() == [1]
    assert MassBudget(mass=0.9, levels=(0.5, 1.0)).counts(
        torch.zeros(1, 4), torch.zeros(1, 4)
    ).tolist() == [2]


def test_counts_are_rounded_up_to_the_levels_and_clamped():
    one_hot, spread = torch.zeros(10), torch.ones(10)
    one_hot[3] = 1
    scores = torch.stack([one_hot, spread])
    budget = MassBudget(mass=0.45, levels=(0.2, 0.6, 0.8))
    assert budget.counts(scores, scores).tolist() == [2, 6]
    assert MassBudget(mass=1.0, levels=(0.2, 0.6)).counts(scores, scores).tolist() == [2, 6]


@pytest.mark.parametrize("budget", [RULE, MassBudget(mass=0.7, levels=(0.1, 0.5))])
def test_a_budget_survives_json(budget):
    assert budget_from_dict(json.loads(json.dumps(budget_to_dict(budget)))) == budget


def test_a_mass_budget_is_plain_values_and_one_without_levels_has_ours():
    plain = {"kind": "mass", "mass": 0.7, "levels": [0.1, 0.5]}
    assert budget_to_dict(MassBudget(mass=0.7, levels=(0.1, 0.5))) == plain
    assert budget_from_dict({"kind": "mass", "mass": 0.7}).levels == (0.1, 0.2, 0.3, 0.5, 0.7, 0.9)


def test_among_tokens_that_rank_alike_the_first_is_first():
    """As `selector.methods.keep` has it; 200 are more than an unstable sort leaves in order."""
    scores = torch.zeros(2, 200)
    scores[0, 150], scores[1, 3] = 1, 1
    assert tokens_for_mass(scores, torch.ones(2, 200), 0.5).tolist() == [151, 4]


def test_sums_and_shares_are_in_double_precision():
    scores = torch.full((1, 1001), 1e-9)
    scores[0, 0] = 1  # a float32 sum stays 1
    ranking = torch.arange(1001.0).flip(0)[None]
    assert tokens_for_mass(scores, ranking, 1.0).tolist() == [1001]
    # 0.3 as a float32 is above 0.3, and asks for one more of ten.
    assert tokens_for_mass(torch.ones(1, 10), torch.ones(1, 10), 0.3).tolist() == [3]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ThresholdBudget(base_ratio=0.3, small_ratio=0.3, alpha=0, beta=1), "below the b"),
        (lambda: ThresholdBudget(base_ratio=0.5, small_ratio=0.3, alpha=0.9, beta=0.1), "alpha"),
        (lambda: ThresholdBudget(base_ratio=1.5, small_ratio=0.3, alpha=0, beta=1), r"\(0, 1\]"),
        (lambda: MassBudget(mass=0.0), "mass"),
        (lambda: MassBudget(mass=1.01), "mass"),
        (lambda: MassBudget(mass=0.5, levels=(0.5, 0.2)), "ascend"),
        (lambda: MassBudget(mass=0.5, levels=()), "ascend"),
        (lambda: budget_from_dict({"kind": "mood"}), "mood"),
        (lambda: budget_from_dict({"kind": "mass"}), "mass"),
    ],
)
def test_impossible_budgets_are_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
