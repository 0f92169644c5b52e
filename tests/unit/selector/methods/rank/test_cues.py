"""Rankings by visual cues, on videos whose answer is known: attention and motion."""

import numpy as np
import pytest
import torch

from pipeline.backbones import load_backbone
from pipeline.clips.views import View
from selector.methods.base import ClipBatch
from selector.methods.rank.attention import AttentionMethod
from selector.methods.rank.motion import MotionMethod, PixelMotionMethod
from tests.checkpoints import save_videomae
from tests.plain import layers, plain_logits


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    """Grid 4x4x4: 8 frames of 32 px, tubelets of 2 frames and 8 px."""
    folder = tmp_path_factory.mktemp("backbone")
    return load_backbone(str(save_videomae(folder, image_size=32, num_frames=8)))


def make_batch(backbone, frames):
    frames = np.asarray(frames, np.uint8)
    with torch.no_grad():
        pixel_values = backbone.pixel_values(frames)
        return ClipBatch(
            backbone=backbone,
            frames=frames,
            pixel_values=pixel_values,
            tokens=backbone.embed(pixel_values),
            labels=torch.zeros(len(frames), dtype=torch.long),
            clip_ids=tuple(range(len(frames))),
            video_ids=("",) * len(frames),
            paths=("",) * len(frames),
            views=(View(),) * len(frames),
        )


@pytest.fixture
def one_square(backbone):
    """A still, textured scene in which one patch jumps at frame 4, the start of tubelet 2."""
    frames = np.random.default_rng(0).integers(0, 255, (1, 1, 32, 32, 3)).repeat(8, axis=1)
    frames[:, 4:, 8:16, 16:24] = 255 - frames[:, 4:, 8:16, 16:24]
    return make_batch(backbone, frames)


@pytest.mark.parametrize("make", [MotionMethod, lambda _: PixelMotionMethod()])
def test_motion_is_where_and_when_something_moved_and_nowhere_else(backbone, one_square, make):
    scores = make(backbone).rank(one_square).scores.view(4, 4, 4)
    assert scores[2, 1, 2] > 0.1
    scores[2, 1, 2] = 0
    assert scores.abs().max() < 1e-4


def test_motion_of_embeddings_does_not_see_positions(backbone, one_square):
    """Neighbouring tubelets differ in position too, by far more than a still scene does."""
    moved = one_square.tokens.values.unflatten(1, (4, 4, 4)).diff(dim=1).norm(dim=-1)
    assert moved.min() > 0.1
    assert MotionMethod(backbone).rank(one_square).scores.median() < 1e-4


@pytest.mark.parametrize("make", [MotionMethod, lambda _: PixelMotionMethod()])
def test_the_first_tubelet_takes_the_scores_of_the_second(backbone, make):
    frames = np.random.default_rng(0).integers(0, 255, (2, 8, 32, 32, 3))
    scores = make(backbone).rank(make_batch(backbone, frames)).scores.view(2, 4, 16)
    assert torch.equal(scores[:, 0], scores[:, 1])
    assert not torch.equal(scores[:, 1], scores[:, 2])


def test_pixel_motion_is_the_mean_change_of_the_patch(backbone):
    frames = np.random.default_rng(0).integers(0, 255, (1, 8, 32, 32, 3))
    batch = make_batch(backbone, frames)
    scores = PixelMotionMethod().rank(batch).scores.view(4, 4, 4)
    pixels = batch.pixel_values[0]
    patch = (slice(None), slice(24, 32), slice(8, 16))
    expected = (pixels[5][patch] - pixels[2][patch]).abs().mean()  # last of tubelet 2, first of 1
    torch.testing.assert_close(scores[2, 3, 1], expected)


def test_attention_received_equals_that_of_explicit_attention(backbone):
    """The same maps as Hugging Face's eager attention gives."""
    frames = np.random.default_rng(0).integers(0, 255, (3, 8, 32, 32, 3))
    batch = make_batch(backbone, frames)
    seen = []
    config = backbone.model.config
    hooks = [
        block.attention.attention.register_forward_hook(lambda m, i, out: seen.append(out[1]))
        for block in layers(backbone)
    ]
    with torch.no_grad():
        got = AttentionMethod(backbone).rank(batch).scores
        of_one = {n: AttentionMethod(backbone, n).rank(batch).scores for n in (0, -1)}
        seen.clear()
        config._attn_implementation = "eager"
        plain_logits(backbone, batch.tokens.values)
    config._attn_implementation = "sdpa"
    for hook in hooks:
        hook.remove()
    expected = torch.stack(seen).mean(dim=(0, 2, 3))
    torch.testing.assert_close(got, expected)
    torch.testing.assert_close(got.sum(1), torch.ones(3))
    for block, scores in of_one.items():
        torch.testing.assert_close(scores, seen[block].mean(dim=(1, 2)))


def test_attention_of_a_block_that_is_not_there_is_refused(backbone):
    last = backbone.num_layers - 1
    assert AttentionMethod(backbone, last).fits(backbone) is None
    for block in (last + 1, -last - 2):
        refusal = AttentionMethod(backbone, block).fits(backbone)
        assert f"blocks.{block} is none of them" in refusal


def test_attention_costs_what_the_blocks_cost(backbone):
    d, n, mlp, classes = 24, 64, 48, 5
    per_block = n * (4 * d * d + 2 * d * mlp) + 2 * n * n * d
    assert AttentionMethod(backbone).gmacs == pytest.approx((3 * per_block + d * classes) / 1e9)


def test_looking_at_attention_does_not_change_it(backbone, one_square):
    with torch.no_grad():
        before = backbone.run(one_square.tokens)
        AttentionMethod(backbone).rank(one_square)
        assert torch.equal(backbone.run(one_square.tokens), before)
