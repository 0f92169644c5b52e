"""vid-TLDR: saliency by hand, and against the numbers of its authors' code."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from pipeline.backbones.tokens import Evidence, grid_tokens
from selector.methods.merge.vid_tldr import VidTLDR, VidTLDRReducer, saliency
from selector.methods.names import vid_tldr_shares


def test_sharp_attention_is_salient_and_blunt_is_not():
    """Entropies log 4, log 2 and 0: scaled 0, .5, 1; above their mean of .5: 0, 0, .5."""
    p = torch.tensor([[0.25] * 4, [0.5, 0.5, 0, 0], [0, 0, 0, 1.0]])
    square = torch.cat([p, p[1:2]])[None]  # the last as the second: mean .5
    assert saliency(square)[0].tolist() == pytest.approx([0, 0, 1, 0], abs=1e-6)


def test_tokens_that_are_all_alike_are_all_salient():
    assert saliency(torch.full((2, 5, 5), 0.2)).tolist() == [[1.0] * 5] * 2


def test_a_probability_of_zero_spoils_nothing():
    assert saliency(torch.eye(4)[None].repeat(2, 1, 1)).isfinite().all()


def test_sources_count_for_as_much_as_they_are_salient():
    """0 and 2 are like 1; 0 is salient, 2 is background and vanishes."""
    x = grid_tokens(torch.tensor([[[3.0, 1], [6, 2], [9, 3], [1, -9]]])).tracked()
    sharp, blunt = torch.tensor([0.0, 0, 0, 1]), torch.full((4,), 0.25)
    seen = Evidence(probabilities=torch.stack([sharp, blunt, blunt, blunt])[None])
    left = VidTLDRReducer((2,)).between(0, x, seen)
    torch.testing.assert_close(left.values, torch.tensor([[[4.5, 1.5], [1, -9]]]))
    assert left.size[0].tolist() == pytest.approx([2, 1])
    assert left.group.tolist() == [[0, 0, 0, 1]]


def test_at_its_largest_number_the_schedule_is_the_list_itself():
    method = VidTLDR(vid_tldr_shares(("merge=600:200:100",)))
    assert method.reducer(12, 600).schedule == (600, 200, 100, *[0] * 9)
    assert method.reducer(12, 7).schedule == (7, 2, 1, *[0] * 9)
    assert method.reducer(2, 600).schedule == (600, 200)


@pytest.mark.parametrize("name", ["r0", "r60", "r144", "r999", "r_all24"])
def test_it_equals_the_authors_code(peers_dir, run_reference, name):
    known = np.load(peers_dir / "vid_tldr" / f"{name}.npz")
    left, logits = run_reference(VidTLDRReducer(tuple(map(int, known["schedule"]))))
    assert left.num == known["tokens"][-1]
    np.testing.assert_allclose(logits, known["logits"], rtol=0, atol=1e-9)


def test_blocks_that_merge_unlike_numbers_weigh_as_theirs(peers_dir, run_reference):
    """Of this schedule only sizes are recorded, which depend on every pair and its saliency."""
    known = json.loads((peers_dir / "vid_tldr" / "summary.json").read_text())["r60_40_20"]
    method = VidTLDR(vid_tldr_shares(("merge=60:40:20",)))
    left, _ = run_reference(method.reducer(6, 60))
    assert left.num == known["tokens"][-1]
    assert left.size.sum(1).mean().item() == pytest.approx(known["size_sum"][-1], abs=1e-9)


def test_its_saliency_equals_theirs(peers_dir):
    known = np.load(peers_dir / "vid_tldr" / "nan_case.npz")
    found = saliency(torch.from_numpy(known["attn"]).mean(1))
    np.testing.assert_allclose(found, known["score"], rtol=0, atol=1e-12)
