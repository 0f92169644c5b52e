"""The rows of an evaluation: each is what a few plain lines make of its clip alone."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch

from pipeline.backbones import load_backbone
from pipeline.backbones.tokens import grid_tokens
from pipeline.clips.views import list_views
from pipeline.decode import DecodeRequest, decode_video
from selector.evaluation.results import read_outcomes
from selector.methods.cost import CostModel
from selector.methods.keep import num_kept
from selector.methods.registry import Parts, make_method, parse_method
from selector.methods.spread import DEFAULT_SPREAD, even_lattice, spread_offsets
from selector.training.files import save_selector, selector_digest
from tests.builds import make_dataset
from tests.evaluations import run_evaluation
from tests.lite_models import make_selector
from tests.plain import layers, plain_logits, token_maps

NUM_VIDEOS, MISSING = 11, 3


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Three shards of 4 clips, the last one short; one video is not there."""
    return make_dataset(tmp_path_factory.mktemp("data"), NUM_VIDEOS, missing=(MISSING,))


@pytest.fixture(scope="module")
def backbone(tiny_backbone):
    return load_backbone(str(tiny_backbone))


def frames_of(backbone, data, number, view=None):
    request = DecodeRequest(
        path=str(data / f"v{number:03d}.mp4"),
        num_frames=backbone.num_frames,
        size=backbone.image_size,
        short_side=backbone.short_side,
        **({} if view is None else {"views": (view,)}),
    )
    return decode_video(request).clips


def tokens_of(backbone, data, number, view=None):
    with torch.no_grad():
        frames = frames_of(backbone, data, number, view)
        return backbone.embed(backbone.pixel_values(frames)).values


def logits_of(backbone, tokens, scores=None, ratio=1.0):
    """Written out by hand: sort, cut, and put back into token order."""
    if scores is not None:
        best = np.argsort(-scores.numpy(), kind="stable")[: num_kept(tokens.shape[1], ratio)]
        tokens = tokens[:, np.sort(best)]
    with torch.no_grad():
        return plain_logits(backbone, tokens)[0]


def test_every_row_is_what_its_clip_gives_alone(tmp_path, data, tiny_backbone, backbone):
    rows = run_evaluation(tmp_path, data, tiny_backbone).evaluation.rows()
    rows = rows.set_index(["clip_id", "method", "seed", "keep_ratio"])
    assert len(rows) == NUM_VIDEOS * (1 + 2 * 2 + 2)
    oracle = "oracle[blocks.-1.output,gradcam]"
    for clip in (0, 5, NUM_VIDEOS - 1):
        tokens = tokens_of(backbone, data, clip)
        label = clip % 5
        cam = token_maps(backbone, grid_tokens(tokens), torch.tensor([label])).cam[0]
        named = hashlib.sha256(f"1\nv{clip:03d}\n0\n0".encode()).digest()
        uniform = torch.from_numpy(np.random.default_rng(list(named)).random(8))
        for key, expected in {
            ("full", 0, 1.0): logits_of(backbone, tokens),
            ("random", 1, 0.25): logits_of(backbone, tokens, uniform, 0.25),
            (oracle, 0, 0.5): logits_of(backbone, tokens, cam, 0.5),
        }.items():
            row = rows.loc[(clip, *key)]
            probs = expected.softmax(-1)
            assert row["status"] == "ok"
            assert row["prediction"] == expected.argmax()
            assert list(row["top5"]) == expected.argsort(descending=True).tolist()
            assert row["label_rank"] == (expected > expected[label]).sum()
            assert row["confidence"] == pytest.approx(probs.max().item(), abs=1e-5)
            assert row["true_prob"] == pytest.approx(probs[label].item(), abs=1e-5)


def test_methods_inside_the_blocks_and_chains_are_rows_like_any_other(
    tmp_path, data, tiny_backbone, backbone
):
    """ToMe written out: keys, cosines, means, block by block."""
    result = run_evaluation(tmp_path, data, tiny_backbone, "tome,uniform+tome", keep_ratios=(0.7,))
    info = result.evaluation.info
    merged, (kept, then_merged) = info.settings[1:]
    rows = result.evaluation.rows().set_index(["clip_id", "method"])
    lattice = torch.from_numpy(even_lattice(backbone.grid))
    for clip in (0, 5):
        tokens = tokens_of(backbone, data, clip)
        best = lattice.argsort(descending=True, stable=True)[:kept].sort().values
        for method, values, pairs in (
            ("tome", tokens, merged),
            ("uniform+tome", tokens[:, best], then_merged),
        ):
            logits, left = plain_tome(backbone, values[0], pairs)
            row = rows.loc[(clip, method)]
            assert row["prediction"] == logits.argmax()
            assert row["true_prob"] == pytest.approx(logits.softmax(-1)[clip % 5].item(), abs=1e-5)
            assert row["num_kept"] == left
            assert row["gmacs_backbone"] <= CostModel(backbone).at(num_kept(8, 0.7)).backbone
            assert row["gmacs"] > row["gmacs_backbone"]


def plain_tome(backbone, values, pairs):
    """One clip (K, D) -> logits (C,) and how many tokens reached the head."""
    size = torch.ones(len(values))
    with torch.no_grad():
        for layer in layers(backbone):
            attention = layer.attention
            normed = layer.layernorm_before(values[None])
            hidden = attention(normed)[0] + values
            keys = attention.attention.key(normed)[0].unflatten(-1, (2, -1)).mean(1)
            keys = keys / keys.norm(dim=-1, keepdim=True)
            even, odd = list(range(0, len(keys), 2)), list(range(1, len(keys), 2))
            similar = keys[even] @ keys[odd].T if odd else torch.empty(len(even), 0)
            r = min(pairs, len(keys) // 2)
            order = sorted(range(len(even)), key=lambda i: -similar[i].max().item()) if r else []
            sums, sizes = hidden * size[:, None], size.clone()
            for i in order[:r]:
                target = odd[int(similar[i].argmax())]
                sums[target] += hidden[even[i]] * size[even[i]]
                sizes[target] += size[even[i]]
            keep = [even[i] for i in order[r:]] + odd if r else list(range(len(keys)))
            values, size = (sums / sizes[:, None])[keep], sizes[keep]
            values = layer.output(
                layer.intermediate(layer.layernorm_after(values[None])), values[None]
            )[0]
        pooled = backbone.model.fc_norm(values.mean(0, keepdim=True))
        return backbone.model.classifier(pooled)[0], len(values)


def test_a_budget_that_a_method_cannot_meet_is_left_out_and_said(
    tmp_path, data, tiny_backbone, caplog
):
    result = run_evaluation(tmp_path, data, tiny_backbone, "tome,uniform", keep_ratios=(0.7, 0.125))
    config = result.evaluation.config
    assert config.left_out == (("tome", 0.125),)
    done = [(c.method, c.keep_ratio) for c in config.conditions]
    assert done == [("full", 1.0), ("tome", 0.7), ("uniform", 0.7), ("uniform", 0.125)]
    assert "keep ratio 0.125 is left out: tome cannot get down to" in caplog.text


def test_lite_is_evaluated_and_costs_its_selector(tmp_path, data, backbone, tiny_backbone):
    folder = str(tmp_path / "selector")
    save_selector(make_selector(backbone, str(tiny_backbone)), folder)
    result = run_evaluation(
        tmp_path / "out", data, tiny_backbone, "lite", selectors={"lite": folder}
    )
    config = result.evaluation.config
    assert config.selector_digests == {"lite": selector_digest(folder)}
    rows = result.evaluation.rows(["method", "gmacs", "gmacs_backbone"]).drop_duplicates()
    extra = (rows["gmacs"] - rows["gmacs_backbone"]).to_numpy() * 1e9
    assert extra == pytest.approx([0] + [8 * (24 * 16 + 16 * 16 + 16)] * 2)


def test_two_selectors_rank_each_for_itself_and_keep_their_own_mass(
    tmp_path, data, backbone, tiny_backbone
):
    selectors = {"lite": make_selector(backbone, str(tiny_backbone))}
    selectors["lite[wide]"] = make_selector(backbone, str(tiny_backbone), seed=2)
    folders = {method: str(tmp_path / f"selector-{i}") for i, method in enumerate(selectors)}
    for method, folder in folders.items():
        save_selector(selectors[method], folder)
    result = run_evaluation(
        tmp_path / "out", data, tiny_backbone, "random,lite,lite[wide]", selectors=folders
    )
    rows = (
        result.evaluation.rows().set_index(["clip_id", "method", "seed", "keep_ratio"]).sort_index()
    )
    for clip in (0, 5):
        tokens = tokens_of(backbone, data, clip)
        for method, selector in selectors.items():
            with torch.no_grad():
                scores = selector(tokens)[0]
            for ratio, kept in ((0.5, 4), (0.25, 2)):
                row = rows.loc[clip, method, 0, ratio]
                probs = logits_of(backbone, tokens, scores, ratio).softmax(-1)
                assert row["confidence"] == pytest.approx(probs.max().item(), abs=1e-5)
                best = sorted(scores.sigmoid().tolist(), reverse=True)
                assert row["mass"] == pytest.approx(sum(best[:kept]) / sum(best), rel=1e-5)
        one, other = (rows.loc[clip, method]["mass"] for method in selectors)
        assert not np.isclose(one, other).any()
    others = rows.index.get_level_values("method").isin(["full", "random"])
    assert rows[others]["mass"].isna().all()
    assert rows.loc[MISSING]["mass"].isna().all()


def test_lite_spread_needs_the_selector_alone_and_its_mass_is_of_what_it_keeps(
    tmp_path, data, backbone, tiny_backbone
):
    selector = make_selector(backbone, str(tiny_backbone))
    save_selector(selector, tmp_path / "selector")
    folders = {"lite[x]": str(tmp_path / "selector")}
    methods = "lite-spread[x]"
    result = run_evaluation(tmp_path / "out", data, tiny_backbone, methods, selectors=folders)
    rows = result.evaluation.rows().set_index(["clip_id", "method", "keep_ratio"]).sort_index()
    tokens = tokens_of(backbone, data, 0)
    with torch.no_grad():
        logits = selector(tokens)[0]
    ranking = logits + spread_offsets(backbone.grid, DEFAULT_SPREAD)
    for ratio, num in ((0.5, 4), (0.25, 2)):
        row, scores = rows.loc[0, methods, ratio], logits.sigmoid()
        probs = logits_of(backbone, tokens, ranking, ratio).softmax(-1)
        assert row["confidence"] == pytest.approx(probs.max().item(), abs=1e-5)
        kept = scores[ranking.topk(num).indices].sum() / scores.sum()
        assert row["mass"] == pytest.approx(kept.item(), rel=1e-5)


def test_views_are_averaged(tmp_path, data, backbone, tiny_backbone):

    result = run_evaluation(tmp_path, data, tiny_backbone, "uniform", num_segments=2, num_crops=3)
    outcomes = read_outcomes(result.evaluation)
    assert len(outcomes.video_ids) == NUM_VIDEOS - 1
    tokens = [tokens_of(backbone, data, 7, view) for view in list_views(2, 3)]
    mean = torch.stack([logits_of(backbone, t).softmax(-1) for t in tokens]).mean(0)
    at = outcomes.video_ids.tolist().index("v007")
    assert outcomes.confidence[at, 0] == pytest.approx(mean.max().item(), rel=1e-3)
    assert outcomes.label_rank[at, 0] == (mean > mean[7 % 5]).sum()


def test_a_method_that_sets_its_own_budget_has_one_row_a_clip_with_its_cost(
    tmp_path, data, tiny_backbone, backbone
):
    """Counted again from the decoded frames, by hand; the 8 tokens are 2 x 2 x 2."""
    changes = {"methods": "random,rlt[tau=0.9]", "keep_ratios": (0.5,)}
    result = run_evaluation(tmp_path, data, tiny_backbone, **changes)
    rows = result.evaluation.rows()
    rows = rows[rows["method"] == "rlt[tau=0.9]"].set_index("clip_id")
    assert rows["keep_ratio"].isna().all()
    assert rows.loc[MISSING, "status"] == "missing_file"
    assert rows.loc[MISSING, ["num_kept", "gmacs"]].isna().all()
    costs = CostModel(backbone)
    for clip, row in rows.drop(index=MISSING).iterrows():
        frames = frames_of(backbone, data, clip)[0] / np.array(backbone.preprocessing.std)
        change = np.abs(frames[3] - frames[0]).mean(-1)
        half = backbone.patch_size
        moved = [change[y : y + half, x : x + half].mean() for y in (0, half) for x in (0, half)]
        num = 4 + sum(bool(value > 0.9) for value in moved)
        assert row["num_kept"] == num
        assert row["gmacs"] == row["gmacs_backbone"] == costs.at(num).backbone
    assert 4 < rows["num_kept"].mean() < 8


def test_a_budget_in_gflops_is_what_its_rows_cost_at_most(tmp_path, data, tiny_backbone, backbone):
    """Between 5 and 6 of the 8 tokens: a ranking keeps 5, and ToMe costs no more."""
    costs = CostModel(backbone)
    gflops = costs.at(5).backbone * 0.4 + costs.at(6).backbone * 0.6
    changes = {"methods": "random,tome", "keep_ratios": (1.0, 0.25), "gflops": (gflops,)}
    info = run_evaluation(tmp_path, data, tiny_backbone, **changes).evaluation.info
    assert info.config.keep_ratios == (1.0, 5 / 8, 0.25)
    at = [i for i, c in enumerate(info.config.conditions) if c.keep_ratio == 5 / 8]
    assert [info.config.conditions[i].method for i in at] == ["random", "random", "tome"]
    assert [info.num_kept[i] for i in at[:2]] == [5, 5]
    assert costs.at(5).backbone == info.gmacs_backbone[at[0]]
    setting = info.settings[at[2]]
    tome = make_method(parse_method("tome"), Parts(backbone))
    assert costs.at(tome.counts(setting, costs.flow)).backbone <= gflops
    assert costs.at(tome.counts(setting - 1, costs.flow)).backbone > gflops
