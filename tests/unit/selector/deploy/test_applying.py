"""A method applied to a model in memory: the same class, fewer tokens, and nothing left behind."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers import (
    AutoModelForVideoClassification,
    TimesformerForVideoClassification,
    VideoMAEForPreTraining,
    VideoMAEForVideoClassification,
)

import selector as lite
from pipeline.errors import BackboneError, ConfigError, UnreachableBudgetError
from selector.deploy.model import LiteModel
from tests.checkpoints import save_timesformer, save_vivit, save_vjepa2
from tests.lite_models import make_pixels


@pytest.fixture
def model(tiny_backbone):
    return VideoMAEForVideoClassification.from_pretrained(tiny_backbone).eval()


def tokens_seen(model):
    """How many tokens enter each layer of a VideoMAE."""
    seen = []
    for layer in model.videomae.encoder.layer:
        layer.layernorm_before.register_forward_hook(lambda m, i, o: seen.append(o.shape[1]))
    return seen


@pytest.mark.parametrize("method", ["uniform", "evs", "tome"])
def test_it_answers_as_the_deployable_model_does(model, tiny_backbone, method):
    plain, expected = type(model), LiteModel.from_backbone(tiny_backbone, method)
    full = model(make_pixels(3)).logits
    assert lite.apply(model, method=method, keep_ratio=0.5) is model
    assert isinstance(model, plain)
    assert type(model).__name__ == plain.__name__
    labels = torch.tensor([0, 4, 2])
    output = model(pixel_values=make_pixels(3), labels=labels)
    torch.testing.assert_close(output.logits, expected(make_pixels(3)).logits, rtol=0, atol=1e-6)
    torch.testing.assert_close(output.loss, F.cross_entropy(output.logits, labels))
    assert not torch.allclose(output.logits, full)
    assert torch.equal(model(make_pixels(3), return_dict=False)[0], output.logits)
    assert lite.remove(model) is model
    assert type(model) is plain
    assert torch.equal(model(make_pixels(3)).logits, full)


def test_the_layers_see_half_of_the_tokens(model):
    seen = tokens_seen(model)
    model(make_pixels(2))
    full = list(seen)
    lite.apply(model, "uniform", 0.5)
    seen.clear()  # costs are counted on a copy, hooks and all
    model(make_pixels(2))
    num = len(model.videomae.encoder.layer)
    assert (full, seen) == ([8] * num, [4] * num)
    lite.apply(model, "uniform", 0.25)  # in place of the other
    model(make_pixels(2))
    assert seen[-num:] == [2] * num


def test_all_tokens_are_the_plain_model(model):
    full = model(make_pixels(3)).logits
    lite.apply(model, "uniform", 1.0)
    torch.testing.assert_close(model(make_pixels(3)).logits, full, rtol=0, atol=1e-6)


def test_nothing_is_left_in_weights_modules_or_files(model, tmp_path):
    weights, modules = list(model.state_dict()), [name for name, _ in model.named_modules()]
    lite.apply(model, "tome", 0.6)
    assert list(model.state_dict()) == weights
    assert [name for name, _ in model.named_modules()] == modules
    model.save_pretrained(tmp_path)
    loaded = AutoModelForVideoClassification.from_pretrained(tmp_path).eval()
    assert type(loaded) is VideoMAEForVideoClassification
    lite.remove(model)
    assert torch.equal(loaded(make_pixels(2)).logits, model(make_pixels(2)).logits)


def test_what_an_adapter_adds_is_taken_away_again(tmp_path):
    folder = save_timesformer(tmp_path)
    model = TimesformerForVideoClassification.from_pretrained(folder).eval()
    modules, full = [name for name, _ in model.named_modules()], model(make_pixels(2)).logits
    lite.apply(model, "uniform", 0.5)
    expected = LiteModel.from_backbone(folder, "uniform")(make_pixels(2)).logits
    torch.testing.assert_close(model(make_pixels(2)).logits, expected, rtol=0, atol=1e-6)
    lite.remove(model)
    assert [name for name, _ in model.named_modules()] == modules
    assert torch.equal(model(make_pixels(2)).logits, full)
    with pytest.raises(ConfigError, match="cannot serve this backbone"):
        lite.apply(
            TimesformerForVideoClassification.from_pretrained(
                save_timesformer(tmp_path / "divided", attention_type="divided_space_time")
            ),
            "tome",
        )


@pytest.mark.parametrize("save", [save_vivit, save_vjepa2])
def test_the_other_families(tmp_path, save):
    folder = save(tmp_path)
    model = AutoModelForVideoClassification.from_pretrained(folder).eval()
    expected = LiteModel.from_backbone(folder, "uniform")
    size = expected.backbone.image_size
    pixels = torch.randn(2, expected.backbone.num_frames, 3, size, size)
    modules, full = [name for name, _ in model.named_modules()], model(pixels).logits
    lite.apply(model, "uniform", 0.5)
    found = model(**{model.main_input_name: pixels}).logits
    torch.testing.assert_close(found, expected(pixels).logits, rtol=0, atol=1e-5)
    assert torch.equal(model(pixels).logits, found)
    assert not torch.allclose(found, full)
    lite.remove(model)
    assert [name for name, _ in model.named_modules()] == modules
    assert torch.equal(model(pixels).logits, full)


def test_a_copy_is_a_model_of_its_own(model):
    lite.apply(model, "uniform", 0.5)
    expected = model(make_pixels(2)).logits
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.classifier.bias.add_(1.0)
    assert torch.equal(model(make_pixels(2)).logits, expected)
    torch.testing.assert_close(other(make_pixels(2)).logits, expected + 1)
    lite.remove(other)
    assert torch.equal(model(make_pixels(2)).logits, expected)


def test_it_can_be_fine_tuned_on_fewer_tokens(model):
    lite.apply(model, "uniform", 0.5).train()
    model(make_pixels(2), labels=torch.tensor([1, 2])).loss.backward()
    missing = [name for name, weight in model.named_parameters() if weight.grad is None]
    assert missing == []


def test_the_precision_is_the_models(model):
    lite.apply(model.to(torch.bfloat16), "uniform", 0.5)
    assert model(make_pixels(2)).logits.dtype == torch.bfloat16


@pytest.mark.parametrize("method", ["uniform", "evs", "tome", "pitome", "repshift"])
def test_one_graph_for_any_batch_size(model, method):
    lite.apply(model, method, 0.5)
    batch = {"pixel_values": {0: torch.export.Dim("batch")}}
    program = torch.export.export(model, (), {"pixel_values": make_pixels(2)}, dynamic_shapes=batch)
    found = program.module()(pixel_values=make_pixels(3)).logits
    torch.testing.assert_close(found, model(make_pixels(3)).logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "error", "fault"),
    [
        (("lite",), ConfigError, "ranks by a selector that was trained"),
        (("tomy",), ConfigError, "unknown method 'tomy'"),
        (("oracle",), ConfigError, "oracle"),
        (("uniform", 0.0), ConfigError, "keep ratio"),
        (("tome", 0.01), UnreachableBudgetError, "cannot get down"),
    ],
)
def test_what_cannot_be_applied_leaves_the_model_as_it_was(model, arguments, error, fault):
    with pytest.raises(error, match=fault):
        lite.apply(model, *arguments)
    assert type(model) is VideoMAEForVideoClassification


def test_models_and_calls_that_do_not_fit(model, tiny_backbone):
    pretraining = VideoMAEForPreTraining._from_config(model.config)
    for other in (pretraining, nn.Linear(2, 2)):
        with pytest.raises(BackboneError, match="is none of the models known here: VideoMAEFor"):
            lite.apply(other)
        assert lite.remove(other) is other
    lite.apply(model)
    with pytest.raises(ConfigError, match="no attentions and hidden states"):
        model(make_pixels(1), output_attentions=True)
    with pytest.raises(ConfigError, match="labels must be class ids"):
        model(make_pixels(1), labels=torch.ones(1, 5))
    with pytest.raises(ConfigError, match="needs frames"):
        model()
