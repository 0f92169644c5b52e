"""ToMe: by brute force on small cases, and against the numbers of its authors' code."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch

from pipeline.backbones import load_backbone
from pipeline.backbones.tokens import Evidence, grid_tokens, reduce, unmerge
from selector.methods.cost import CostModel, Flow, TokenCounts
from selector.methods.merge import tome
from selector.methods.merge.matching import match, most_mergeable
from selector.methods.merge.tome import ToMe, ToMeReducer, schedule
from tests.weightless import weightless_videomae_b


def by_brute_force(metric: torch.Tensor, r: int, prefix: int) -> list[tuple[int, int]]:
    """Pairs (source, target) of one clip, in the order in which they merge."""
    unit = [row / row.norm() for row in metric]
    pairs = []
    for a in range(0, len(unit), 2):
        partners = [b for b in range(1, len(unit), 2) if b >= prefix]
        if a < prefix or not partners:
            continue
        best = max(partners, key=lambda b: (float(unit[a] @ unit[b]), -b))
        pairs.append((float(unit[a] @ unit[best]), a, best))
    pairs.sort(key=lambda pair: (-pair[0], pair[1]))
    return [(a, b) for _, a, b in pairs[:r]]


@pytest.mark.parametrize("num", [2, 3, 9, 10])
@pytest.mark.parametrize("prefix", [0, 1, 2])
def test_the_most_similar_pairs_merge(num, prefix):
    generator = torch.Generator().manual_seed(num * 10 + prefix)
    metric = torch.randn(3, num, 5, generator=generator, dtype=torch.float64)
    for r in range(1, most_mergeable(num, prefix) + 1):
        found = match(metric, r, prefix).merged(by_position=prefix > 0)
        for clip in range(3):
            pairs = list(
                zip(
                    found.merge.source[clip].tolist(),
                    found.merge.target[clip].tolist(),
                    strict=True,
                )
            )
            assert pairs == by_brute_force(metric[clip], r, prefix)
            kept = found.keep[clip].tolist()
            assert sorted(kept + [a for a, _ in pairs]) == list(range(num))
            assert kept[: min(prefix, 1)] == list(range(min(prefix, 1)))


def test_equal_similarities_go_to_the_lower_position():
    found = match(torch.ones(1, 8, 3), 2).merged(by_position=False)
    assert found.merge.source.tolist() == [[0, 2]]
    assert found.merge.target.tolist() == [[1, 1]]
    assert found.keep.tolist() == [[4, 6, 1, 3, 5, 7]]


def test_keys_of_zero_length_are_no_matter():
    metric = torch.zeros(1, 6, 4)
    metric[0, 3] = 1
    assert match(metric, 2).similar.isfinite().all()


def test_bfloat16_keys_are_compared_as_float32():
    """Cosines 1e-3 apart are equal in bfloat16."""
    metric = torch.tensor([[[1.0, 0.055], [1, 0], [1.0, 0.0315], [1, 0]]]).bfloat16()
    assert match(metric, 1).source.tolist() == [[2]]


def test_cost_of_videomae_b_is_the_published_one():
    """GMACs with matching; what is published counts 400 classes, 0.0002 more."""
    costs = CostModel(weightless_videomae_b())
    flow = costs.flow
    constant = {65: 129.21, 83: 116.09, 98: 105.55, 127: 86.37, 150: 74.23, 196: 57.92, 255: 45.92}
    falling = {92: 86.40, 60: 116.65, 99: 79.90, 147: 46.17}
    for inflect, published in ((0, constant), (-1, falling)):
        method = ToMe(inflect)
        for r, gmacs in published.items():
            total = costs.at(method.counts(r, flow)).backbone + method.overhead(r, flow)
            assert total == pytest.approx(gmacs, abs=0.006)
    assert costs.at(ToMe().counts(65, flow)).backbone == pytest.approx(128.92, abs=0.006)


def test_half_the_cost_of_keeping_half():
    costs = CostModel(weightless_videomae_b())
    r = ToMe().setting(0.5, costs)
    target = costs.blocks(784)
    assert costs.blocks(ToMe().counts(r, costs.flow)) <= target
    assert costs.blocks(ToMe().counts(r - 1, costs.flow)) > target


def test_counts_by_hand():
    """9 tokens, a prefix of 1, 3 a block: 9 -> 6 -> 4 (2 of 3 can merge) -> 3 -> 2."""
    counts = ToMe().counts(3, Flow(9, 4, prefix=1))
    assert counts == TokenCounts((9, 6, 4, 3), (6, 4, 3, 2), 2)


# The authors' code on a model of 288 tokens and 6 blocks, in float64.
CASES = {
    "merge_r16": False,
    "merge_r16_prop": True,
    "merge_r7_prop": True,
    "merge_r24_dec": False,
    "merge_r24_inc": False,
    "merge_list": False,
    "merge_r200_clamped": True,
}


@pytest.mark.parametrize("name", CASES)
def test_it_equals_the_authors_code(peers_dir, run_reference, name):
    known = np.load(peers_dir / "tome" / f"{name}.npz")
    left, logits = run_reference(ToMeReducer(tuple(map(int, known["schedule"])), CASES[name]))
    assert np.array_equal(left.group, known["group"])
    np.testing.assert_array_equal(left.size, known["size"])
    np.testing.assert_allclose(logits, known["logits"], rtol=0, atol=1e-9)


@pytest.mark.parametrize("proportional", [False, True])
@torch.no_grad()
def test_beside_a_cls_token_it_equals_the_authors_code(peers_dir, proportional):
    """On ViViT, whose CLS token stays in front and never merges."""
    known = np.load(peers_dir / "tome" / "vivit_cls.npz")
    case = f"vivit_r20_prop{int(proportional)}"
    backbone = load_backbone(str(peers_dir / "backbones" / "vivit")).double()
    pixels = torch.from_numpy(np.load(peers_dir / "common" / "clips.npz")["pixel_values"])
    reducer = ToMeReducer((20,) * 4, proportional)
    left = backbone.encode(backbone.embed(pixels.double()), reducer)
    assert left.num == known[f"{case}_tokens"][-1]
    np.testing.assert_array_equal(left.size, known[f"{case}_size"])
    np.testing.assert_allclose(backbone.head(left), known[f"{case}_logits"], rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("name", "mode", "threshold"),
    [
        ("drop_r16", "drop", 0.0),
        ("drop_r24_dec", "drop", 0.0),
        ("hybrid_r16_t08", "hybrid", 0.8),
        ("hybrid_r40_t08", "hybrid", 0.8),
    ],
)
def test_dropping_and_replacing_equal_their_authors_code(
    peers_dir, run_reference, name, mode, threshold
):
    known = np.load(peers_dir / "tome" / f"{name}.npz")
    reducer = ToMeReducer(tuple(map(int, known["schedule"])), mode=mode, threshold=threshold)
    left, logits = run_reference(reducer)
    assert np.array_equal(left.group, known["group"])
    np.testing.assert_allclose(logits, known["logits"], rtol=0, atol=1e-9)


@pytest.mark.parametrize("mode", ["random-drop", "random-merge"])
def test_random_pairs_equal_their_authors_code(peers_dir, run_reference, monkeypatch, mode):
    """With their random numbers; ours follow from the clip."""
    known = np.load(peers_dir / "tome" / f"{mode.replace('-', '_')}_r16.npz")
    generator = torch.Generator().manual_seed(123)

    def theirs(layer, x, seeds):
        return torch.rand(len(x), (x.num + 1) // 2, x.num // 2, generator=generator)

    monkeypatch.setattr(tome, "at_random", theirs)
    _, logits = run_reference(ToMeReducer(tuple(map(int, known["schedule"])), mode=mode))
    np.testing.assert_allclose(logits, known["logits"], rtol=0, atol=1e-9)


def test_a_source_unlike_its_target_takes_its_place():
    """Hybrid by hand: 0 and 1 point the same way and merge; 2 replaces 3, a right angle away."""
    x = grid_tokens(torch.tensor([[[1.0], [3.0], [5.0], [7.0]]])).tracked()
    keys = torch.tensor([[1.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])[None, None]
    left = ToMeReducer((2,), mode="hybrid", threshold=0.5).between(0, x, Evidence(keys))
    # 2 finds 1 and 3 equally unlike and takes the first, whose own value is then lost for 0 too.
    assert left.values[0, :, 0].tolist() == [3.0, 7.0]
    assert left.size.tolist() == [[2, 1]]
    assert left.group.tolist() == [[0, -1, 0, 1]]


OPERATOR = [(144, 0, 20), (145, 1, 20), (145, 1, 100), (9, 0, 3), (10, 1, 99)]


@pytest.mark.parametrize(("num", "cls", "r"), OPERATOR)
def test_the_operator_equals_the_authors(peers_dir, num, cls, r):
    known = np.load(peers_dir / "tome" / "operator.npz")

    def get(what: str) -> torch.Tensor:
        return torch.from_numpy(known[f"n{num}_cls{cls}_r{r}_{what}"])

    pairs = match(get("metric"), min(r, most_mergeable(num, cls)), cls)
    decided = pairs.merged(by_position=cls > 0)
    assert torch.equal(decided.merge.source, get("src"))
    x = grid_tokens(get("x"), prefix=cls, off_grid=cls).tracked()
    left = reduce(x, decided)
    torch.testing.assert_close(left.values, get("out"), rtol=0, atol=1e-12)
    torch.testing.assert_close(left.size, get("size"), rtol=0, atol=0)
    torch.testing.assert_close(unmerge(left), get("unmerged")[:, cls:], rtol=0, atol=1e-12)


def test_schedules_by_hand():
    assert schedule(16, 0, 4) == (16, 16, 16, 16)
    assert schedule(16, -1, 5) == (32, 24, 16, 8, 0)
    assert schedule(16, 1, 3) == (0, 16, 32)
    assert schedule(5, -1, 1) == (10,)


def test_schedules_equal_the_authors(peers_dir):
    known = json.loads((peers_dir / "tome" / "summary.json").read_text())
    found = 0
    for key, pairs in known.items():
        if match_ := re.fullmatch(r"parse_r_(\d+)_(?:(\d+)|\((\d+), ([-.\d]+)\))", key):
            layers, constant, r, inflect = match_.groups()
            assert list(schedule(int(constant or r), float(inflect or 0), int(layers))) == pairs
            found += 1
    assert found
