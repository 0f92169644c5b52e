"""PiToMe: energies and pairs by hand, and against the numbers of its authors' code."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from pipeline.backbones.tokens import Evidence, grid_tokens
from selector.methods.cost import Flow
from selector.methods.merge.pitome import PiToMe, PiToMeReducer, energies, num_merged


def test_energy_is_the_mean_likeness_above_a_margin():
    """Two equal tokens and one at a right angle, block 1 of 3: the margin is 0.5."""
    similar = torch.tensor([[[1.0, 1, 0], [1, 1, 0], [0, 0, 1]]])
    low = math.expm1(-0.5)
    expected = [(0.5 + 0.5 + low) / 3, (0.5 + 0.5 + low) / 3, (0.5 + 2 * low) / 3]
    assert energies(similar, 1, 3)[0].tolist() == pytest.approx(expected)


def test_tokens_of_a_crowd_merge_and_a_lone_one_is_protected():
    """Tokens 1, 2, 3, 4 look alike; 0 and 5 alone. One pair of the crowd merges, twice."""
    keys = torch.eye(4)[torch.tensor([0, 1, 1, 1, 1, 2])][None, None]
    x = grid_tokens(torch.arange(6.0)[None, :, None]).tracked()
    left = PiToMeReducer(334, 2, plain=True).between(0, x, Evidence(keys))
    # Equal energies keep their order: 1 and 3 merge into 2 and 4, each into the first equal one.
    assert sorted(left.place[0].tolist()) == [0, 2, 4, 5]
    assert left.group[0, 0] != left.group[0, 5]
    assert left.size.sum() == 6
    lone = [left.place[0].tolist().index(place) for place in (0, 5)]
    assert left.size[0, lone].tolist() == [1, 1]


def test_the_prefix_stays_in_front():
    keys = torch.randn(1, 2, 9, 4, generator=torch.Generator().manual_seed(0))
    x = grid_tokens(torch.arange(9.0)[None, :, None], prefix=1, off_grid=1).tracked()
    for plain in (True, False):
        left = PiToMeReducer(250, 12, plain=plain).between(0, x, Evidence(keys))
        assert left.num == 7
        assert left.values[0, 0].item() == 0
        assert left.place[0, 0] == -1


@pytest.mark.parametrize(("num", "setting", "merged"), [(288, 200, 57), (10, 75, 0), (9, 500, 4)])
def test_how_many_merge(num, setting, merged):
    assert num_merged(num, setting) == merged


def test_counts_by_hand():
    """9 tokens and a prefix, 30 % a block: 10 - 2 - 2 - 1."""
    counts = PiToMe().counts(300, Flow(10, 3, prefix=1))
    assert (counts.attention, counts.mlp, counts.head) == ((10, 8, 6), (8, 6, 5), 5)


@pytest.mark.parametrize(
    "name",
    [
        "ratio0.925_prop0",
        "ratio0.925_prop1",
        "ratio0.8_prop0",
        "ratio0.5_prop0",
        "default_ratio0.8",
        "default_ratio0.925",
    ],
)
def test_it_equals_the_authors_code(peers_dir, run_reference, name):
    known = np.load(peers_dir / "pitome" / f"{name}.npz")
    merged = round(1000 * (1 - float(known["ratio"])))
    left, logits = run_reference(
        PiToMeReducer(merged, 6, plain="default" not in name, proportional="prop1" in name)
    )
    np.testing.assert_allclose(logits, known["logits"], rtol=0, atol=1e-9)
    np.testing.assert_allclose(left.size, known["size"], rtol=0, atol=1e-9)
