"""Occlusion is the drop of the explained logit, box by box."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch

from pipeline.backbones import load_backbone
from pipeline.clips.grid import TokenGrid
from pipeline.errors import ConfigError
from pipeline.oracle.names import default_layer, make_oracle, oracle_layer
from pipeline.oracle.occlusion import Occlusion, boxes
from tests.checkpoints import save_videomae, save_vivit
from tests.plain import plain_logits


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    """Grid 3 x 4 x 4."""
    folder = tmp_path_factory.mktemp("backbone")
    return load_backbone(str(save_videomae(folder, image_size=32, num_frames=6)))


def test_boxes_cover_the_grid_once_and_are_cut_at_its_edges():
    found = boxes(TokenGrid(3, 2, 3), (2, 2, 2))
    assert sorted(itertools.chain(*found)) == list(range(18))
    assert found[0] == [0, 1, 3, 4, 6, 7, 9, 10]
    assert [len(box) for box in found] == [8, 4, 4, 2]


@pytest.mark.parametrize("labels", [torch.tensor([1, 4]), None])
@torch.no_grad()
def test_a_box_is_worth_what_is_lost_without_it(backbone, labels):
    pixels = torch.randn(2, 6, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    tokens = backbone.embed(pixels)
    maps = Occlusion((2, 2, 2)).values(backbone, tokens, labels)
    whole = plain_logits(backbone, tokens.values)
    torch.testing.assert_close(maps.logits, whole)
    explained = whole.argmax(1) if labels is None else labels
    cam = maps.cam.view(2, 3, 4, 4)
    for t, y, x in ((0, 0, 0), (2, 2, 0), (1, 3, 3)):
        inside = torch.zeros(3, 4, 4, dtype=torch.bool)
        inside[t // 2 * 2 :, y // 2 * 2 :, x // 2 * 2 :][:2, :2, :2] = True
        left = plain_logits(backbone, tokens.values[:, ~inside.flatten()])
        for clip in range(2):
            drop = whole[clip, explained[clip]] - left[clip, explained[clip]]
            torch.testing.assert_close(cam[clip, t, y, x], drop, rtol=0, atol=1e-5)


@torch.no_grad()
def test_what_the_head_reads_is_never_left_out(tmp_path):
    first = load_backbone(str(save_videomae(tmp_path, use_mean_pooling=False)))
    tokens = first.embed(torch.randn(1, 4, 3, 16, 16))
    cam = Occlusion((1, 1, 1)).values(first, tokens, None).cam[0]
    assert cam[0] == 0
    assert (cam[1:] != 0).all()


@torch.no_grad()
def test_a_token_beside_the_grid_is_not_counted_among_its_places(tmp_path):
    vivit = load_backbone(str(save_vivit(tmp_path)))
    tokens = vivit.embed(torch.randn(1, vivit.num_frames, 3, vivit.image_size, vivit.image_size))
    assert tokens.num == vivit.grid.num_tokens + 1
    cam = Occlusion((1, 1, 1)).values(vivit, tokens, torch.tensor([2])).cam[0]
    whole = vivit.run(tokens)[0, 2]
    for place in (0, 1, vivit.grid.num_tokens - 1):
        others = [index for index in range(tokens.num) if index != place + 1]
        left = replace(tokens, values=tokens.values[:, others], place=tokens.place[:, others])
        torch.testing.assert_close(cam[place], whole - vivit.run(left)[0, 2], rtol=0, atol=1e-6)


def test_it_looks_at_no_layer(backbone):
    assert oracle_layer(backbone, "occlusion", "embeddings") == "embeddings"
    assert oracle_layer(backbone, "occlusion", None) == "embeddings"
    assert default_layer(backbone, "occlusion") == "embeddings"
    assert isinstance(make_oracle("occlusion", "embeddings"), Occlusion)
    with pytest.raises(ConfigError, match="looks at no layer, got 'blocks.0.mlp'"):
        oracle_layer(backbone, "occlusion", "blocks.0.mlp")


def test_a_clip_that_is_one_box_is_refused(tiny_backbone, tmp_path):
    with pytest.raises(ConfigError, match="a clip of this backbone is one box"):
        oracle_layer(load_backbone(str(tiny_backbone)), "occlusion", None)
    # The token that the head reads is left, and so there is an answer.
    first = load_backbone(str(save_videomae(tmp_path, use_mean_pooling=False)))
    assert oracle_layer(first, "occlusion", None) == "embeddings"
