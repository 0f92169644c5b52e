"""A TimeSformer that starts from a VideoMAE does what that one does, part by part."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from pipeline.backbones.tokens import Tokens
from pipeline.errors import BackboneError
from pipeline.standin.config import BackboneConfig
from pipeline.standin.inherit import start_from_videomae
from pipeline.standin.model import as_backbone, build_model, embed_kept, normalise, to_patches

SIZES = {"hidden_size": 24, "num_layers": 2, "num_heads": 2, "image_size": 24}
VIDEOMAE = BackboneConfig(**SIZES)
TIMESFORMER = BackboneConfig(family="timesformer", num_frames=8, tubelet_size=1, **SIZES)
NAMES = ["a", "b", "c"]


@pytest.fixture
def start():
    torch.manual_seed(0)
    backbone = as_backbone(build_model(VIDEOMAE, NAMES), VIDEOMAE)
    for parameter in backbone.model.parameters():  # norms and biases of 1 and 0 hide mistakes
        torch.nn.init.normal_(parameter, std=0.2)
    return backbone.eval()


@pytest.fixture
def made(start):
    torch.manual_seed(1)
    model = build_model(TIMESFORMER, NAMES)
    start_from_videomae(model, start)
    return as_backbone(model, TIMESFORMER).eval()


def test_a_frame_is_embedded_as_a_tubelet_that_shows_it_twice(start, made):
    generator = torch.Generator().manual_seed(0)
    frames = torch.randint(0, 256, (2, 8, 24, 24, 3), generator=generator).to(torch.uint8)
    index = torch.arange(start.grid.num_tokens).expand(2, -1)
    doubled = frames.repeat_interleave(2, dim=1)
    ours = embed_kept(made, normalise(to_patches(frames, TIMESFORMER)), index).values[:, 1:]
    theirs = embed_kept(start, normalise(to_patches(doubled, VIDEOMAE)), index).values
    # Without what is added for the place: theirs is one number a token, ours a sum of two.
    table = start.model.videomae.embeddings.position_embeddings[0]
    embeddings = made.model.timesformer.embeddings
    added = embeddings.time_embeddings[0][:, None] + embeddings.position_embeddings[0, 1:]
    torch.testing.assert_close(ours - added.flatten(0, 1), theirs - table, atol=1e-4, rtol=1e-4)
    # The closest sum, by least squares over all (time, place) pairs.
    t, places = 8, 9
    design = torch.cat(
        [torch.eye(t).repeat_interleave(places, 0), torch.eye(places).repeat(t, 1)], dim=1
    ).double()
    fitted = design @ torch.linalg.lstsq(design, table.double(), driver="gelsd").solution
    torch.testing.assert_close(added.flatten(0, 1).double(), fitted, atol=1e-5, rtol=0)


def test_blocks_of_equal_inputs_give_equal_outputs_and_the_head_reads_alike(start, made):
    values = torch.randn(2, 11, 24, generator=torch.Generator().manual_seed(0))
    place = torch.arange(11).expand(2, -1)

    def encoded(backbone):
        tokens = Tokens(values, place, prefix=0, off_grid=0)
        for block in backbone.blocks:
            tokens = block(tokens)
        return tokens.values

    with torch.no_grad():
        ours, theirs = encoded(made), encoded(start)
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
        assert (theirs - values).abs().mean() > 0.1
        read = made.model.classifier(made.model.timesformer.layernorm(ours[:, 0]))
        torch.testing.assert_close(
            read, start.model.classifier(start.model.fc_norm(ours[:, 0])), atol=1e-4, rtol=1e-4
        )


def test_other_classes_get_a_fresh_head_and_the_checkpoint_is_only_read(start):
    before = {name: value.clone() for name, value in start.model.state_dict().items()}
    model = build_model(TIMESFORMER, ["c", "b", "a"])
    fresh = model.classifier.weight.clone()
    start_from_videomae(model, start)
    assert torch.equal(model.classifier.weight, fresh)
    model.timesformer.layernorm.weight.data.zero_()
    assert all(torch.equal(value, before[name]) for name, value in start.model.state_dict().items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_layers": 3}, r"differ num_hidden_layers \(2 -> 3\)"),
        ({"patch_size": 12}, r"differ patch_size \(8 -> 12\)"),
        ({"num_heads": 3}, r"differ num_attention_heads \(2 -> 3\)"),
        ({"num_frames": 4}, "8 tubelets are no 4 frames"),
    ],
)
def test_another_shape_is_refused_by_name(start, change, message):
    model = build_model(replace(TIMESFORMER, **change), NAMES)
    with pytest.raises(BackboneError, match=message):
        start_from_videomae(model, start)
