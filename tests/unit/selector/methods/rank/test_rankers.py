"""The names of rankings, chance, the oracle and LITE as rankings."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline.backbones import load_backbone
from pipeline.clips.views import View
from pipeline.errors import ConfigError
from selector.methods.keep import num_kept, top_tokens
from selector.methods.rank import (
    NAMES,
    ClipBatch,
    make_ranker,
    parse_selectors,
    parse_specs,
    require_selectors,
)
from selector.methods.rank.chance import RandomRanker, UniformRanker
from selector.methods.rank.spec import RankerSpec
from selector.methods.spread import DEFAULT_SPREAD, spread_offsets
from selector.training.files import save_selector
from tests.checkpoints import save_videomae
from tests.lite_models import make_selector
from tests.plain import token_maps


@pytest.fixture(scope="module")
def backbone(tiny_backbone):
    return load_backbone(str(tiny_backbone))


def make_batch(backbone, clip_ids=(0, 1, 2)):
    side = backbone.image_size
    frames = np.random.default_rng(0).integers(
        0, 256, (len(clip_ids), backbone.num_frames, side, side, 3), dtype=np.uint8
    )
    with torch.no_grad():
        pixels = backbone.pixel_values(frames)
        tokens = backbone.embed(pixels)
    return ClipBatch(
        backbone=backbone,
        frames=frames,
        pixel_values=pixels,
        tokens=tokens,
        labels=torch.arange(len(clip_ids)),
        clip_ids=tuple(clip_ids),
        paths=("",) * len(clip_ids),
        views=(View(),) * len(clip_ids),
    )


def test_names_are_parsed_with_the_oracles_layers():
    specs = parse_specs(
        "random, oracle,oracle[embeddings,hirescam] ,oracle-predicted", "blocks.-1.mlp", "gradcam"
    )
    assert [str(spec) for spec in specs] == [
        "random",
        "oracle[blocks.-1.mlp,gradcam]",
        "oracle[embeddings,hirescam]",
        "oracle-predicted[blocks.-1.mlp,gradcam]",
    ]
    canonical = ",".join(map(str, specs))
    assert parse_specs(canonical, "embeddings", "fem") == specs


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "at least one"),
        ("random,nonsense", "unknown method 'nonsense': the known ones are random"),
        ("lite[embeddings,gradcam]", "the name of one selector"),
        ("lite[]", "unknown method"),
        ("random[x]", "only an oracle and lite take brackets"),
        ("oracle[embeddings]", r"needs its \[layer,method\]"),
        ("oracle[embeddings,fem,x]", r"needs its \[layer,method\]"),
        ("lite[x],lite[x]", "twice"),
        ("random,random", "twice"),
        ("oracle,oracle[embeddings,gradcam]", "twice"),
    ],
)
def test_wrong_names_are_refused_and_the_known_ones_listed(text, message):
    with pytest.raises(ConfigError, match=message):
        parse_specs(text, "embeddings", "gradcam")


def test_lite_is_named_after_its_selector():
    specs = parse_specs("lite,lite[hi-res_2]", "embeddings", "gradcam")
    assert specs == (RankerSpec("lite"), RankerSpec("lite", selector="hi-res_2"))
    assert [str(spec) for spec in specs] == ["lite", "lite[hi-res_2]"]


def test_the_spread_one_goes_by_the_same_selector():
    specs = parse_specs("lite-spread,lite-spread[x],lite[x],random", "embeddings", "gradcam")
    assert [str(spec) for spec in specs] == ["lite-spread", "lite-spread[x]", "lite[x]", "random"]
    assert [spec.selected_by for spec in specs] == ["lite", "lite[x]", "lite[x]", None]
    require_selectors(specs, ["lite", "lite[x]"])


@pytest.mark.parametrize(
    ("texts", "found"),
    [
        ([], {}),
        (["a/b"], {"lite": "a/b"}),
        (["x=a", "b", "y=c=d"], {"lite[x]": "a", "lite": "b", "lite[y]": "c=d"}),
        (["runs/lr=3"], {"lite": "runs/lr=3"}),
        (["./lr=3"], {"lite": "./lr=3"}),
    ],
)
def test_selectors_are_a_folder_or_a_name_with_a_folder(texts, found):
    assert parse_selectors(texts) == found


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["a", "b"], "two selectors for method lite, 'a' and 'b'"),
        (["x=a", "x=a"], r"two selectors for method lite\[x\]"),
        (["x="], "DIR or NAME=DIR, got 'x='"),
        ([""], "DIR or NAME=DIR, got ''"),
    ],
)
def test_selectors_that_cannot_be_told_apart_are_refused(texts, message):
    with pytest.raises(ConfigError, match=message):
        parse_selectors(texts)


@pytest.mark.parametrize(
    ("methods", "given", "message"),
    [
        ("random,lite[x]", ["lite"], r"method lite\[x\] needs .* --selector x=DIR"),
        ("lite-spread[x]", [], r"method lite-spread\[x\] needs .* --selector x=DIR"),
        ("lite,lite[x]", ["lite[x]"], "method lite needs .* --selector DIR"),
        ("lite", ["lite", "lite[x]"], r"given for lite\[x\], which is none of the methods lite:"),
        ("random", ["lite"], "given for lite, which is none of the methods random:"),
    ],
)
def test_every_lite_has_a_selector_and_every_selector_a_lite(methods, given, message):
    with pytest.raises(ConfigError, match=message):
        require_selectors(parse_specs(methods, "embeddings", "gradcam"), given)


@pytest.mark.parametrize(
    ("layer", "method", "message"),
    [("blocks.7.mlp", "gradcam", "blocks.7.mlp"), ("embeddings", "scorecam", "scorecam")],
)
def test_an_oracle_that_cannot_be_computed_is_refused_before_any_clip(
    backbone, layer, method, message
):
    with pytest.raises(ConfigError, match=message):
        make_ranker(RankerSpec("oracle", layer, method), backbone)


def test_random_depends_on_seed_and_clip_and_on_nothing_else(backbone):
    together = RandomRanker(1).scores(make_batch(backbone, (3, 4, 5)))
    alone = RandomRanker(1).scores(make_batch(backbone, (4,)))
    assert torch.equal(together[1:2], alone)
    assert not torch.equal(together[0], together[1])
    assert not torch.equal(RandomRanker(2).scores(make_batch(backbone, (4,))), alone)


@pytest.mark.parametrize("keep_ratio", [0.9, 0.7, 0.5, 0.3, 0.1])
def test_uniform_keeps_as_many_tokens_in_every_part_of_the_clip(tmp_path, keep_ratio):
    """No half of any axis holds more than a few tokens above its share; random would."""
    big = load_backbone(str(save_videomae(tmp_path, image_size=64, num_frames=16)))
    kept = top_tokens(UniformRanker().scores(make_batch(big)), num_kept(512, keep_ratio))
    mask = torch.zeros(512).scatter(0, kept[0], 1.0).view(8, 8, 8)
    share = mask.sum().item() / 2
    for axis in range(3):
        assert abs(mask.narrow(axis, 0, 4).sum().item() - share) <= 0.04 * 512 / 2


@pytest.mark.parametrize("name", ["oracle", "oracle-predicted"])
def test_an_oracle_ranks_by_the_signed_cam_of_its_class(backbone, name):
    batch = make_batch(backbone)
    ranker = make_ranker(RankerSpec(name, "blocks.1.mlp", "hirescam"), backbone)
    with torch.no_grad():
        got = ranker.scores(batch)
    labels = batch.labels if name == "oracle" else None
    expected = token_maps(backbone, batch.tokens, labels, "blocks.1.mlp", "hirescam").cam
    assert torch.equal(got, expected)
    assert (got < 0).any()
    assert ranker.gmacs is None


def test_lite_ranks_as_its_selector_does_and_counts_its_cost(backbone, tiny_backbone, tmp_path):
    selector = make_selector(backbone, str(tiny_backbone))
    save_selector(selector, tmp_path)
    ranker = make_ranker(RankerSpec("lite"), backbone, selector=tmp_path)
    batch = make_batch(backbone)
    with torch.no_grad():
        logits = ranker.scores(batch)
        assert torch.equal(logits, selector(batch.tokens.values))
        assert torch.equal(ranker.predicted(logits), logits.sigmoid())
    assert ranker.gmacs == pytest.approx(8 * (24 * 16 + 16 * 16 + 16) / 1e9)


def test_lite_spread_moves_the_ranking_and_not_what_is_predicted(backbone, tiny_backbone, tmp_path):
    save_selector(make_selector(backbone, str(tiny_backbone)), tmp_path)
    lite = make_ranker(RankerSpec("lite"), backbone, selector=tmp_path)
    spread = make_ranker(RankerSpec("lite-spread"), backbone, selector=tmp_path)
    batch = make_batch(backbone)
    with torch.no_grad():
        plain, moved = lite.scores(batch), spread.scores(batch)
    offsets = spread_offsets(backbone.grid, DEFAULT_SPREAD)
    torch.testing.assert_close(moved - plain, offsets.expand_as(plain))
    torch.testing.assert_close(spread.predicted(moved), lite.predicted(plain))
    assert spread.gmacs == lite.gmacs


def test_lite_without_a_selector_says_how_to_get_one(backbone):
    with pytest.raises(ConfigError, match="--selector DIR"):
        make_ranker(RankerSpec("lite"), backbone)


def test_lite_of_another_backbone_is_refused(backbone, tiny_backbone, tmp_path):
    save_selector(make_selector(backbone, str(tiny_backbone)), tmp_path / "selector")
    other = load_backbone(str(save_videomae(tmp_path / "other", seed=7)))
    with pytest.raises(ConfigError, match=r"method lite\[x\] \(.*selector\): .*another backbone"):
        make_ranker(RankerSpec("lite", selector="x"), other, selector=tmp_path / "selector")


def test_every_known_name_is_made_by_the_factory(backbone, tiny_backbone, tmp_path):
    save_selector(make_selector(backbone, str(tiny_backbone)), tmp_path)
    heavy = {"saliency"}  # loads a detector of its own
    for spec in parse_specs(",".join(set(NAMES) - heavy), "embeddings", "gradcam"):
        assert make_ranker(spec, backbone, selector=tmp_path) is not None
