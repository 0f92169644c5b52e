"""Chance, the oracle and LITE as rankings, made by name."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline.backbones import load_backbone
from pipeline.clips.views import View
from pipeline.errors import ConfigError
from selector.methods.base import ClipBatch
from selector.methods.keep import num_kept, top_tokens
from selector.methods.names import MethodName
from selector.methods.rank.chance import RandomMethod, UniformMethod
from selector.methods.rank.oracle import wrong_class
from selector.methods.registry import METHODS, Parts, make_method, parse_methods
from selector.methods.spread import DEFAULT_SPREAD, spread_offsets
from selector.training.files import save_selector
from tests.checkpoints import save_videomae
from tests.lite_models import make_selector
from tests.plain import token_maps


@pytest.fixture(scope="module")
def backbone(tiny_backbone):
    return load_backbone(str(tiny_backbone))


def parts_of(backbone, folder, name="lite"):
    return Parts(backbone, selectors={name: str(folder)})


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
        video_ids=tuple(f"v{clip}" for clip in clip_ids),
        paths=("",) * len(clip_ids),
        views=(View(),) * len(clip_ids),
    )


@pytest.mark.parametrize(
    ("layer", "method", "message"),
    [("blocks.7.mlp", "gradcam", "blocks.7.mlp"), ("embeddings", "scorecam", "scorecam")],
)
def test_an_oracle_that_cannot_be_computed_is_refused_before_any_clip(
    backbone, layer, method, message
):
    with pytest.raises(ConfigError, match=message):
        make_method(MethodName("oracle", (layer, method)), Parts(backbone))


def test_random_depends_on_seed_and_clip_and_on_nothing_else(backbone):
    together = RandomMethod(1).rank(make_batch(backbone, (3, 4, 5))).scores
    alone = RandomMethod(1).rank(make_batch(backbone, (4,))).scores
    assert torch.equal(together[1:2], alone)
    assert not torch.equal(together[0], together[1])
    assert not torch.equal(RandomMethod(2).rank(make_batch(backbone, (4,))).scores, alone)
    # In another plan the clip has another row, in another view it is another clip.
    moved = replace(make_batch(backbone, (4,)), clip_ids=(77,))
    assert torch.equal(RandomMethod(1).rank(moved).scores, alone)
    other = replace(moved, views=(View(1, 0, 2, 1),))
    assert not torch.equal(RandomMethod(1).rank(other).scores, alone)
    digest = hashlib.sha256(b"1\nv4\n0\n0").digest()
    expected = np.random.default_rng(list(digest)).random(backbone.grid.num_tokens)
    assert np.array_equal(alone[0].numpy(), expected)


@pytest.mark.parametrize("keep_ratio", [0.9, 0.7, 0.5, 0.3, 0.1])
def test_uniform_keeps_as_many_tokens_in_every_part_of_the_clip(tmp_path, keep_ratio):
    """No half of any axis holds more than a few tokens above its share; random would."""
    big = load_backbone(str(save_videomae(tmp_path, image_size=64, num_frames=16)))
    kept = top_tokens(UniformMethod().rank(make_batch(big)).scores, num_kept(512, keep_ratio))
    mask = torch.zeros(512).scatter(0, kept[0], 1.0).view(8, 8, 8)
    share = mask.sum().item() / 2
    for axis in range(3):
        assert abs(mask.narrow(axis, 0, 4).sum().item() - share) <= 0.04 * 512 / 2


@pytest.mark.parametrize("name", ["oracle", "oracle-predicted"])
def test_an_oracle_ranks_by_the_signed_cam_of_its_class(backbone, name):
    batch = make_batch(backbone)
    ranker = make_method(MethodName(name, ("blocks.1.mlp", "hirescam")), Parts(backbone))
    with torch.no_grad():
        got = ranker.rank(batch).scores
    labels = batch.labels if name == "oracle" else None
    expected = token_maps(backbone, batch.tokens, labels, "blocks.1.mlp", "hirescam").cam
    assert torch.equal(got, expected)
    assert (got < 0).any()
    assert ranker.gmacs is None


def test_lite_ranks_as_its_selector_does_and_counts_its_cost(backbone, tiny_backbone, tmp_path):
    selector = make_selector(backbone, str(tiny_backbone))
    save_selector(selector, tmp_path)
    ranker = make_method(MethodName("lite"), parts_of(backbone, tmp_path))
    batch = make_batch(backbone)
    with torch.no_grad():
        ranking = ranker.rank(batch)
        logits = selector(batch.tokens.values)
    assert torch.equal(ranking.scores, logits)
    assert torch.equal(ranking.predicted, logits.sigmoid())
    assert ranker.gmacs == pytest.approx(8 * (24 * 16 + 16 * 16 + 16) / 1e9)


def test_lite_spread_moves_the_ranking_and_not_what_is_predicted(backbone, tiny_backbone, tmp_path):
    save_selector(make_selector(backbone, str(tiny_backbone)), tmp_path)
    lite = make_method(MethodName("lite"), parts_of(backbone, tmp_path))
    spread = make_method(MethodName("lite-spread"), parts_of(backbone, tmp_path))
    batch = make_batch(backbone)
    with torch.no_grad():
        plain, moved = lite.rank(batch), spread.rank(batch)
    offsets = spread_offsets(backbone.grid, DEFAULT_SPREAD)
    torch.testing.assert_close(moved.scores - plain.scores, offsets.expand_as(plain.scores))
    assert torch.equal(moved.predicted, plain.predicted)
    assert spread.gmacs == lite.gmacs


def test_lite_without_a_selector_says_how_to_get_one(backbone):
    with pytest.raises(ConfigError, match="--selector DIR"):
        make_method(MethodName("lite"), Parts(backbone))


def test_lite_of_another_backbone_is_refused(backbone, tiny_backbone, tmp_path):
    save_selector(make_selector(backbone, str(tiny_backbone)), tmp_path / "selector")
    other = load_backbone(str(save_videomae(tmp_path / "other", seed=7)))
    with pytest.raises(ConfigError, match=r"method lite\[x\] \(.*selector\): .*another backbone"):
        make_method(MethodName("lite", ("x",)), parts_of(other, tmp_path / "selector", "lite[x]"))


def test_every_known_name_is_made_and_says_its_name(backbone, tiny_backbone, tmp_path):
    save_selector(make_selector(backbone, str(tiny_backbone)), tmp_path)
    others = {"saliency", "sta", "vid-tldr"}  # ask for a detector, 8 tubelets, four blocks
    asked = [*(set(METHODS) - others), "lite+tome", "tome[inflect=-1,prop-attn]"]
    asked.append("vid-tldr[blocks=2]")
    for name in parse_methods(",".join(asked), "embeddings", "gradcam"):
        assert str(make_method(name, parts_of(backbone, tmp_path))) == str(name)


def test_the_steering_control_is_the_map_of_the_runner_up(backbone):
    batch = make_batch(backbone)
    ranker = make_method(MethodName("oracle-second", ("blocks.1.mlp", "hirescam")), Parts(backbone))
    with torch.no_grad():
        got = ranker.rank(batch).scores
        second = torch.tensor(np.argsort(backbone.run(batch.tokens).numpy(), axis=1)[:, -2].copy())
    expected = token_maps(backbone, batch.tokens, second, "blocks.1.mlp", "hirescam").cam
    assert torch.equal(got, expected)


def test_a_wrong_class_is_neither_known_and_follows_from_video_view_and_seed():
    drawn = [wrong_class((0, f"v{i}", 0, 0), [1, 3], 5) for i in range(300)]
    assert set(drawn) == {0, 2, 4}
    assert min(drawn.count(c) for c in (0, 2, 4)) > 60
    assert drawn == [wrong_class((0, f"v{i}", 0, 0), [3, 1], 5) for i in range(300)]
    for other in ((1, "v{}", 0, 0), (0, "v{}", 1, 0), (0, "v{}", 0, 1)):
        seeds = [tuple(s.format(i) if isinstance(s, str) else s for s in other) for i in range(300)]
        assert drawn != [wrong_class(seed, [1, 3], 5) for seed in seeds]
    assert wrong_class((0, "v", 0, 0), [1, 1], 3) in (0, 2)


def test_a_control_needs_a_class_to_steer_to(tmp_path):
    two = load_backbone(str(save_videomae(tmp_path, num_labels=2)))
    with pytest.raises(ConfigError, match="oracle-wrong needs 3 classes, and it has 2"):
        make_method(MethodName("oracle-wrong", ("embeddings", "hirescam")), Parts(two))


def test_the_prior_is_the_same_mask_for_every_clip_and_ranks_by_the_means(
    backbone, tiny_backbone, tmp_path
):
    selector = make_selector(backbone, str(tiny_backbone))
    means = torch.tensor([0.5, 0.0, 1.0, 0.2, 0.9, 0.2, 0.0, 0.4])
    selector.prior = means
    save_selector(selector, tmp_path)
    ranker = make_method(MethodName("prior"), parts_of(backbone, tmp_path))
    spread = make_method(MethodName("prior-spread"), parts_of(backbone, tmp_path))
    for method in (ranker, spread):
        assert (method.gmacs, method.unseen) == (0, None)
        scores = method.prepare(make_batch(backbone, range(5))).scores
        assert (scores == scores[0]).all()
    batch = make_batch(backbone, (0,))
    kept = top_tokens(ranker.prepare(batch).scores, 4)
    assert kept.tolist() == [[0, 2, 4, 7]]
    moved = means.logit(1e-6) + spread_offsets(backbone.grid, DEFAULT_SPREAD)
    for k in range(1, 9):
        assert torch.equal(top_tokens(spread.prepare(batch).scores, k), top_tokens(moved[None], k))


def test_a_selector_that_kept_no_means_has_no_prior(backbone, tiny_backbone, tmp_path):
    selector = make_selector(backbone, str(tiny_backbone))
    selector.prior = None
    save_selector(selector, tmp_path)
    make_method(MethodName("lite"), parts_of(backbone, tmp_path))
    with pytest.raises(ConfigError, match="prior: an earlier release .* train it again"):
        make_method(MethodName("prior"), parts_of(backbone, tmp_path))
