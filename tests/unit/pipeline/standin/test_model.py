"""The backbone over tubelets that were cut out first equals Hugging Face's over all of them."""

from dataclasses import replace

import pytest
import torch

from pipeline.errors import ConfigError
from pipeline.standin.config import BackboneConfig
from pipeline.standin.model import (
    as_backbone,
    build_model,
    embed_kept,
    normalise,
    pick,
    start_from_principal_components,
    to_patches,
)

SIZES = {"hidden_size": 24, "num_layers": 2, "num_heads": 2}
CONFIG = BackboneConfig(**SIZES)
TIMESFORMER = BackboneConfig(family="timesformer", num_frames=8, tubelet_size=1, **SIZES)
NAMES = ["a", "b", "c"]


@pytest.fixture(scope="module")
def frames():
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (3, 16, 48, 48, 3), generator=generator).to(torch.uint8)


@pytest.mark.parametrize(
    "config",
    [CONFIG, replace(CONFIG, precision="bf16"), TIMESFORMER],
    ids=["videomae-fp32", "videomae-bf16", "timesformer"],
)
def test_all_tokens_give_the_plain_models_logits(frames, config):
    torch.manual_seed(0)
    model = build_model(config, NAMES).eval()
    if config is TIMESFORMER:  # a head that reads nothing of the positions would pass without
        torch.nn.init.normal_(model.timesformer.embeddings.position_embeddings)
        torch.nn.init.normal_(model.timesformer.embeddings.time_embeddings)
    frames = frames[:, : config.num_frames]
    patches = normalise(to_patches(frames, config))
    index = torch.arange(288).expand(3, -1)
    mean, std = (
        torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )
    pixels = (frames.permute(0, 1, 4, 2, 3) / 255.0 - mean) / std
    with torch.no_grad():
        backbone = as_backbone(model, config)
        ours = backbone.run(embed_kept(backbone, patches, index))
        theirs = model(pixels).logits
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def test_the_order_of_the_kept_tokens_does_not_matter(frames):
    torch.manual_seed(0)
    backbone = as_backbone(build_model(CONFIG, NAMES), CONFIG).eval()
    patches = to_patches(frames, CONFIG)
    index = torch.rand(3, 288).argsort(1)[:, :50]
    with torch.no_grad():
        one, other = (
            backbone.run(embed_kept(backbone, normalise(pick(patches, i)), i))
            for i in (index, index.flip(1))
        )
    torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_a_timesformer_starts_with_another_position_at_every_place():
    torch.manual_seed(0)
    backbone = as_backbone(build_model(TIMESFORMER, NAMES), TIMESFORMER)
    nothing = torch.zeros(1, 288, 192)
    tokens = embed_kept(backbone, nothing, torch.arange(288)[None])
    assert tokens.place[0, :3].tolist() == [-1, 0, 1]
    apart = torch.cdist(tokens.on_grid[0], tokens.on_grid[0]).fill_diagonal_(torch.inf)
    assert apart.min() > 0.1


@pytest.mark.parametrize("config", [CONFIG, TIMESFORMER], ids=["videomae", "timesformer"])
def test_the_first_filters_are_white_on_the_patches_they_came_from(frames, config):
    model = build_model(config, NAMES)
    patches = normalise(to_patches(frames[:, : config.num_frames], config)).flatten(0, 1)
    start_from_principal_components(model, patches)
    projection = getattr(model, config.family).embeddings.patch_embeddings.projection
    outputs = patches @ projection.weight.flatten(1).T + projection.bias
    torch.testing.assert_close(outputs.mean(0), torch.zeros(24), atol=1e-3, rtol=0)
    torch.testing.assert_close(outputs.T.cov(correction=0), torch.eye(24) / 4, atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"family": "vit"}, "family must be one of videomae, timesformer, got 'vit'"),
        ({"family": "timesformer"}, "tubelet_size must be 1, got 2"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"precision": "fp8"}, "precision must be one of fp32, bf16, got 'fp8'"),
        ({"hidden_size": 50}, r"hidden_size \(50\) must be a multiple of num_heads \(4\)"),
        ({"keep_low": 0.7}, "0 < low <= high <= 1, got 0.7 and 0.6"),
    ],
)
def test_settings_that_cannot_work_are_refused(setting, message):
    with pytest.raises(ConfigError, match=message):
        BackboneConfig(**setting)
