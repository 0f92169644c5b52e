"""A model holds any method: before the blocks, inside them, or both, with or without a selector."""

from __future__ import annotations

import json
import re

import pytest
import torch
from typer.testing import CliRunner

from pipeline.backbones import load_backbone
from pipeline.cli import app
from pipeline.errors import ConfigError, UnreachableBudgetError
from selector.budgets.clip_budget import MassBudget
from selector.deploy.config import LiteConfig
from selector.deploy.model import LiteModel
from selector.methods.base import ClipBatch
from selector.methods.registry import Parts, make_method, parse_method
from tests.checkpoints import save_videomae
from tests.lite_models import make_model
from tests.plain import plain_logits
from tests.videos import write_video

SIZES = {"image_size": 32, "num_frames": 6, "num_hidden_layers": 4}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """48 tokens."""
    return save_videomae(tmp_path_factory.mktemp("checkpoint"), **SIZES)


def make_pixels(num: int) -> torch.Tensor:
    return torch.randn(num, 6, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_even_tokens_need_no_selector(checkpoint):
    model = LiteModel.from_backbone(checkpoint, "uniform", keep_ratio=0.25)
    pixels = make_pixels(2)
    output = model(pixels)
    assert output.kept.sum(1).tolist() == output.budget.tolist() == [12, 12]
    assert torch.equal(output.kept[0], output.kept[1])
    values = model.backbone.embed(pixels).values[:, output.kept[0]]
    torch.testing.assert_close(output.logits, plain_logits(model.backbone, values))


@torch.no_grad()
def test_tome_says_where_every_token_went(checkpoint):
    model = LiteModel.from_backbone(checkpoint, "tome", keep_ratio=0.7)
    pixels = make_pixels(3)
    output = model(pixels)
    assert (output.group >= 0).all()
    assert output.group.max() == output.budget[0] - 1
    assert output.kept.sum(1).tolist() == output.budget.tolist()
    method = make_method(parse_method("tome"), Parts(model.backbone))
    setting = method.setting(0.7, model.costs)
    batch = ClipBatch.of_pixels(model.backbone, pixels, model.backbone.embed(pixels))
    by_hand = model.backbone.run(batch.tokens, method.reducer(method.prepare(batch), setting))
    assert torch.equal(output.logits, by_hand)
    cost = model.cost_of(0.7)
    assert cost.backbone <= model.cost(33).backbone
    assert cost.selector > 0


@torch.no_grad()
def test_a_chain_ranks_by_the_selector_and_then_merges(checkpoint):
    plain = make_model(checkpoint)
    chain = make_model(checkpoint, LiteConfig(method="lite+tome", keep_ratio=0.5))
    pixels = make_pixels(2)
    kept, output = plain(pixels, keep_ratio=0.5**0.5).kept, chain(pixels)
    assert (output.budget < kept.sum(1)).all()
    assert not (output.kept & ~kept).any()  # what reaches the head was chosen before
    assert ((output.group >= 0) == kept).all()
    assert chain.cost_of().backbone <= plain.cost(24).backbone


@torch.no_grad()
def test_uneven_budgets_are_what_each_clip_gets_alone(checkpoint):
    model = LiteModel.from_backbone(checkpoint, "tome")
    pixels, ratios = make_pixels(3), [0.7, 1.0, 0.9]
    together = model(pixels, keep_ratio=ratios)
    for clip, ratio in enumerate(ratios):
        alone = model(pixels[clip : clip + 1], keep_ratio=ratio)
        torch.testing.assert_close(together.logits[clip : clip + 1], alone.logits)
        assert together.budget[clip] == alone.budget[0]
        assert torch.equal(together.group[clip], alone.group[0])
        assert torch.equal(together.kept[clip], alone.kept[0])
    assert together.group[1].tolist() == list(range(48))  # nothing happened to it


@pytest.mark.parametrize("method", ["tome", "uniform", "lite+tome"])
@torch.no_grad()
def test_a_saved_model_is_the_same_model(checkpoint, tmp_path, method):
    config = LiteConfig(method=method, keep_ratio=0.6, sampling="stride:2")
    model = make_model(checkpoint, config)
    if "lite" not in method:
        model = LiteModel.from_backbone(checkpoint, method, keep_ratio=0.6, sampling="stride:2")
    model.save_pretrained(tmp_path)
    loaded = LiteModel.from_pretrained(tmp_path)
    assert (loaded.config.method, loaded.sampling) == (method, "stride:2")
    pixels = make_pixels(2)
    assert torch.equal(loaded(pixels).logits, model(pixels).logits)


@torch.no_grad()
def test_another_method_for_a_saved_model(checkpoint, tmp_path):
    make_model(checkpoint, LiteConfig(budget=MassBudget(mass=0.5))).save_pretrained(tmp_path)
    loaded = LiteModel.from_pretrained(tmp_path, method="tome")
    assert loaded.config.budget is None  # it was found for the selector
    assert loaded(make_pixels(1), keep_ratio=0.7).group is not None


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("oracle[embeddings,hirescam]", "needs the answer, which a model in use does not see"),
        ("motion-vectors", "needs the compressed file"),
        ("random+tome+tome", "a chain is one method"),
        ("lite", "needs its trained selector"),
        ("sta", "a clip has 3 tubelets"),
        ("rlt+tome", "rlt leaves every clip another number of tokens"),
        ("lite-spread", "lite with a spread"),
    ],
)
def test_methods_that_no_model_can_hold_are_refused(checkpoint, method, message):
    with pytest.raises(ConfigError, match=message):
        LiteModel.from_backbone(checkpoint, method)


def test_an_adaptive_budget_goes_with_the_selector_alone():
    with pytest.raises(ConfigError, match="goes with method lite alone, got 'lite.tome'"):
        LiteConfig(method="lite+tome", budget=MassBudget(mass=0.5))


@pytest.fixture(scope="module")
def moving():
    """Three clips of which 2, 7 and 0 patches change after the first tubelet, and one of noise."""
    pixels = torch.zeros(4, 6, 3, 32, 32)
    pixels[0, 2:, :, :8, :16] = 1  # from the second tubelet on: two patches of 8 pixels
    pixels[1, 2:, :, :8, :24] = 1
    pixels[1, 4:, :, 8:16, :] = -1
    pixels[3] = make_pixels(1)[0]
    return pixels


@torch.no_grad()
def test_rlt_leaves_each_clip_what_changed(checkpoint, moving):
    """As evaluate's reducer has it, clip by clip, and as counted by hand."""
    model = LiteModel.from_backbone(checkpoint, "rlt")
    output = model(moving)
    per_tubelet = model.backbone.grid.h * model.backbone.grid.w
    patch = 32 // model.backbone.grid.w
    changed = [
        (16 // patch) * (8 // patch),
        (24 // patch) * (8 // patch) + (32 // patch) * (8 // patch),
        0,
    ]
    assert (output.budget[:3] - per_tubelet).tolist() == changed
    assert output.budget.tolist() == output.kept.sum(1).tolist()
    method = make_method(parse_method("rlt"), Parts(model.backbone))
    for clip in range(4):
        alone = moving[clip : clip + 1]
        batch = ClipBatch.of_pixels(model.backbone, alone, model.backbone.embed(alone))
        prepared = method.prepare(batch)
        reducer = method.reducer(prepared, method.setting(1, model.costs))
        expected = model.backbone.run(batch.tokens, reducer)
        torch.testing.assert_close(output.logits[clip : clip + 1], expected, rtol=0, atol=1e-6)
    assert model(moving[:0]).logits.shape == (0, model.backbone.num_classes)
    assert torch.equal(model(moving, keep_ratio=1).logits, model.backbone(moving))
    with pytest.raises(ConfigError, match="takes no keep ratio but 1"):
        model(moving, keep_ratio=0.5)
    with pytest.raises(ConfigError, match="each clip's content decides"):
        model.cost_of()


@torch.no_grad()
def test_rlt_from_the_command_line(checkpoint, tmp_path):
    """Its cost is that of the tokens it kept; a saved model is the same, selector or not."""
    video = write_video(tmp_path / "bars.mp4", 12)
    out = tmp_path / "model"
    source = ["--backbone", str(checkpoint), "--method", "rlt[grey=20]"]
    exported = CliRunner().invoke(app, ["export-lite", *source, "--out", str(out)])
    assert exported.exit_code == 0, exported.output
    assert "as many as each clip's content asks for" in (out / "README.md").read_text()
    shown = CliRunner().invoke(app, ["predict", str(video), "--model", str(out), "--json"])
    (answer,) = json.loads(shown.stdout)
    model = LiteModel.from_pretrained(out)
    (num,) = answer["kept_tokens"]
    assert 0 < num < 48
    assert answer["gmacs"] == model.costs.at(num, ranked=False).total
    with_selector = make_model(checkpoint, LiteConfig(method="rlt"))
    assert with_selector.cost(num).selector == 0


def test_a_budget_out_of_reach_says_how_far_it_goes(checkpoint):
    model = LiteModel.from_backbone(checkpoint, "tome[inflect=1]")
    with pytest.raises(UnreachableBudgetError, match="cannot get down to .* its cheapest") as error:
        model(make_pixels(1), keep_ratio=0.1)
    found = re.search(
        r"a keep ratio of (\S+) \(it merges at most half of a block's tokens\): ask",
        str(error.value),
    )
    least = float(found[1])
    model(make_pixels(1), keep_ratio=least)
    with pytest.raises(UnreachableBudgetError):
        model(make_pixels(1), keep_ratio=least - 1 / model.backbone.grid.num_tokens)


def test_the_command_line_needs_no_training(checkpoint, tmp_path):
    video = write_video(tmp_path / "bars.mp4", 12)
    arguments = ["predict", str(video), "--backbone", str(checkpoint), "--method", "tome", "--json"]
    shown = CliRunner().invoke(app, [*arguments, "--keep-ratio", "0.7"])
    assert shown.exit_code == 0, shown.output
    (answer,) = json.loads(shown.stdout)
    model = LiteModel.from_backbone(checkpoint, "tome")
    assert answer["gmacs"] == model.cost_of(0.7).total < answer["full_gmacs"]
    out = tmp_path / "model"
    exported = CliRunner().invoke(
        app, ["export-lite", "--backbone", str(checkpoint), "--method", "tome", "--out", str(out)]
    )
    assert exported.exit_code == 0, exported.output
    assert LiteModel.from_pretrained(out).config.method == "tome"
    mask = tmp_path / "kept.png"
    drawn = CliRunner().invoke(
        app,
        ["predict", str(video), "--model", str(out), "--keep-ratio=0.8", f"--save-mask={mask}"],
    )
    assert drawn.exit_code == 0, drawn.output
    assert mask.stat().st_size > 0
    nothing = CliRunner().invoke(app, ["predict", str(video), "--backbone", str(checkpoint)])
    assert nothing.exit_code == 1
    assert "--model DIR, or --backbone CHECKPOINT with a --method" in nothing.output


def test_synthetic_is_a_checkpoint_too():
    model = LiteModel.from_backbone("synthetic", "evs")
    assert model.backbone.digest == load_backbone("synthetic").digest


@pytest.mark.parametrize("method", ["motion", "fluxvit", "evs", "uniform", "tome"])
@torch.no_grad()
def test_a_model_may_move_after_it_was_made(checkpoint, method):
    model = LiteModel.from_backbone(checkpoint, method, keep_ratio=0.7).to("meta")
    assert model(make_pixels(2)).logits.shape == (2, 5)
