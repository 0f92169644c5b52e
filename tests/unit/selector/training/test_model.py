"""The selector's architectures, their cost, and that they come back from disk as they went."""

import json
from dataclasses import dataclass, replace

import pytest
import torch

from pipeline.clips.grid import TokenGrid
from pipeline.errors import ConfigError
from selector.training.config import ARCHS, DEFAULT_LAYERS, SelectorConfig, TrainedOn
from selector.training.files import load_selector, save_selector
from selector.training.model import TokenSelector

GRID = TokenGrid(2, 3, 4)
TRAINED_ON = TrainedOn(
    dataset="ssv2",
    split="train",
    plan_digest="d" * 64,
    sampling="stride:4",
    num_segments=2,
    num_crops=3,
    held_out=0.2,
)
CONFIG = SelectorConfig(
    num_layers=3,
    width=16,
    hidden_size=8,
    grid=GRID,
    backbone="small",
    backbone_digest="a" * 64,
    store_fingerprint="f" * 64,
    oracle="gradcam of blocks.-1.mlp, label",
    revision="abc",
    trained_on=TRAINED_ON,
)


@dataclass
class FakeBackbone:
    digest: str = "a" * 64
    grid: TokenGrid = GRID
    hidden_size: int = 8


def make(arch: str, **changes) -> TokenSelector:
    torch.manual_seed(0)
    layers = {"num_layers": DEFAULT_LAYERS[arch]} | changes
    return TokenSelector(replace(CONFIG, arch=arch, **layers)).eval()


def tokens(num_clips: int = 3) -> torch.Tensor:
    return torch.randn(num_clips, GRID.num_tokens, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("arch", ARCHS)
def test_every_architecture_gives_one_logit_per_token_and_learns(arch):
    model = make(arch)
    logits = model(tokens())
    assert logits.shape == (3, GRID.num_tokens)
    logits.sum().backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("arch", ARCHS)
def test_a_clip_scores_the_same_alone_and_in_a_batch(arch):
    model, z = make(arch), tokens()
    torch.testing.assert_close(model(z)[1:2], model(z[1:2]))


@pytest.mark.parametrize("arch", ["mlp", "mlp4", "mlp5"])
def test_the_mlps_judge_each_token_alone(arch):
    model, z = make(arch), tokens()
    torch.testing.assert_close(model(z)[:, [5, 2]], model(z[:, [5, 2]]))
    num_linear = sum(isinstance(m, torch.nn.Linear) for m in model.modules())
    assert num_linear == DEFAULT_LAYERS[arch]


@pytest.mark.parametrize("arch", ["global", "transformer"])
def test_the_others_see_the_whole_clip(arch):
    model, z = make(arch), tokens()
    changed = z.clone()
    changed[:, 0] += 3
    assert (model(z)[:, -1] - model(changed)[:, -1]).abs().max() > 1e-6


@pytest.mark.parametrize("arch", ARCHS)
def test_tokens_given_in_another_order_get_the_same_scores(arch):
    model, z = make(arch), tokens()
    order = torch.stack([torch.randperm(GRID.num_tokens) for _ in range(3)])
    shuffled = z.gather(1, order[..., None].expand_as(z))
    torch.testing.assert_close(model(shuffled, order), model(z).gather(1, order))


def test_global_refuses_a_sample_and_says_what_it_needs():
    with pytest.raises(ConfigError, match="all 24 tokens"):
        make("global")(tokens()[:, :5])


def test_statistics_standardise_the_input_and_a_constant_channel_does_no_harm():
    model, z = make("mlp"), tokens() * 100 + 7
    z[..., 3] = 5.0
    flat = z.flatten(0, 1)
    model.set_statistics(flat.mean(0), flat.std(0, correction=0), base_rate=0.2)
    standard = (z - model.mean) / model.std
    assert standard.mean(dim=(0, 1)).abs().max() < 1e-4
    torch.testing.assert_close(model(z), model.body(standard).squeeze(-1))
    assert torch.isfinite(model(z)).all()
    assert model.body[-1].bias.item() == pytest.approx(torch.logit(torch.tensor(0.2)).item())


def test_the_cost_of_the_mlp_is_that_of_its_layers():
    assert make("mlp").macs_per_token() == 8 * 16 + 16 * 16 + 16
    assert make("mlp5").macs_per_token() == 8 * 16 + 3 * 16 * 16 + 16


def test_attention_makes_a_token_dearer_the_more_there_are():
    model = make("transformer", width=32)
    per_block = 12 * 32 * 32
    assert model.macs_per_token(24) == 8 * 32 + per_block + 2 * 24 * 32 + 32
    assert model.macs_per_token(48) == model.macs_per_token(24) + 2 * 24 * 32


def test_the_cost_of_global_counts_its_convolutions_once_per_group():
    w = 16
    expected = 8 * w + 2 * (27 * w + w * w) + 4 * w * w + 2 * 24 * w + w * w + w
    assert make("global").macs_per_token() == expected


@pytest.mark.parametrize("arch", ARCHS)
def test_a_saved_selector_comes_back_bit_for_bit(tmp_path, arch):
    model = make(arch)
    model.set_statistics(torch.arange(8.0), torch.full((8,), 2.0), 0.1)
    save_selector(model, tmp_path / "out")
    loaded = load_selector(tmp_path / "out", FakeBackbone())
    assert loaded.config == model.config
    assert torch.equal(loaded(tokens()), model(tokens()))
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "config.json",
        "selector.safetensors",
    ]


def test_a_foreign_backbone_is_refused_with_the_fields_that_differ(tmp_path):
    save_selector(make("mlp"), tmp_path)
    other = FakeBackbone(digest="b" * 64, grid=TokenGrid(8, 14, 14))
    with pytest.raises(ConfigError) as caught:
        load_selector(tmp_path, other)
    message = str(caught.value)
    assert "backbone_digest aaaaaaaaaaaa -> bbbbbbbbbbbb" in message
    assert "token_grid (2, 3, 4) -> (8, 14, 14)" in message
    assert "hidden_size" not in message


def test_a_folder_without_a_selector_is_refused_with_the_command(tmp_path):
    with pytest.raises(ConfigError, match="train-selector"):
        load_selector(tmp_path)


def test_a_selector_of_the_first_schema_is_refused_with_what_it_lacks(tmp_path):
    save_selector(make("mlp"), tmp_path)
    path = tmp_path / "config.json"
    old = json.loads(path.read_text()) | {"schema_version": 1}
    for name in ("trained_on", "revision"):
        del old[name]
    path.write_text(json.dumps(old))
    with pytest.raises(ConfigError, match=r"version 1, .*which dataset, split.*train-selector"):
        load_selector(tmp_path)


def test_a_selector_that_no_store_trained_says_so(tmp_path):
    model = TokenSelector(replace(CONFIG, trained_on=None))
    save_selector(model, tmp_path)
    assert load_selector(tmp_path).config.trained_on is None


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", b"{}"),
        ("config.json", b"[1]"),
        ("config.json", b'{"schema_version": 99}'),
        ("selector.safetensors", b"not weights"),
    ],
)
def test_a_damaged_selector_is_refused_naming_the_file(tmp_path, name, content):
    save_selector(make("mlp"), tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=name):
        load_selector(tmp_path)


def test_weights_of_another_shape_are_refused(tmp_path):
    save_selector(make("mlp"), tmp_path)
    wider = replace(CONFIG, width=32)
    (tmp_path / "config.json").write_text(wider.to_json())
    with pytest.raises(ConfigError, match="does not hold the weights"):
        load_selector(tmp_path)
