"""What LITE++ asks before it sets a budget: the backbone, or any other video classifier."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.models import get_model, get_model_weights

from pipeline.backbones import load_backbone
from pipeline.errors import ConfigError
from selector.budgets.confidence_names import load_confidence
from selector.budgets.rules import ThresholdBudget
from selector.deploy.config import LiteConfig
from selector.methods.cost import CostModel
from tests.checkpoints import save_videomae
from tests.lite_models import make_model, make_pixels
from tests.plain import plain_logits


@pytest.fixture(scope="module")
def backbone(tiny_backbone):
    return load_backbone(str(tiny_backbone))


def ask(confidence, backbone, pixels):
    tokens = backbone.embed(pixels)
    return confidence(pixels, tokens, tokens.values.mean(2)).confidence


def test_the_backbone_is_asked_with_the_best_tokens_only(backbone):
    confidence = load_confidence("backbone:0.25", backbone)
    tokens = backbone.embed(make_pixels(2))
    ranking = tokens.values.mean(2)
    best = ranking.topk(2).indices.sort(1).values
    kept = torch.stack([clip[i] for clip, i in zip(tokens.values, best, strict=True)])
    logits = plain_logits(backbone, kept)
    judged = confidence(make_pixels(2), tokens, ranking)
    torch.testing.assert_close(judged.confidence, logits.softmax(-1).amax(-1))
    torch.testing.assert_close(dict(judged.answers), {2: logits})
    assert confidence.gmacs == CostModel(backbone).at(2).blocks
    assert (confidence.extra_gmacs(2), confidence.extra_gmacs(3)) == (0, confidence.gmacs)
    assert not list(confidence.parameters())  # they are the backbone's


def test_a_hugging_face_classifier_sees_the_clip_as_its_own_processor_makes_it(backbone, tmp_path):
    """Half the frames and twice the side: what it gets equals a resize of the raw pixels."""
    folder = save_videomae(tmp_path, num_labels=3, num_frames=2, image_size=32, seed=3)
    confidence = load_confidence(f"hf:{folder}", backbone)
    clips = np.random.default_rng(0).integers(0, 256, (2, 4, 16, 16, 3), dtype=np.uint8)
    raw = torch.tensor(clips[:, [1, 3]]).permute(0, 1, 4, 2, 3).float().flatten(0, 1)
    big = torch.nn.functional.interpolate(raw, [32, 32], mode="bilinear", antialias=True)
    other = load_backbone(str(folder))
    big = big.unflatten(0, (2, 2)) / 127.5 - 1  # mean and deviation are a half
    expected = other(big).softmax(-1).amax(-1)
    torch.testing.assert_close(ask(confidence, backbone, backbone.pixel_values(clips)), expected)
    assert confidence.gmacs == pytest.approx(CostModel(other).at(16).total)


def test_a_torchvision_classifier_with_ones_own_weights(backbone, tmp_path):
    torch.manual_seed(0)
    model = get_model("mc3_18", num_classes=3).eval()
    torch.save(model.state_dict(), tmp_path / "mine.pth")
    confidence = load_confidence(f"torchvision:mc3_18@{tmp_path / 'mine.pth'}", backbone)
    clips = np.random.default_rng(0).integers(0, 256, (1, 4, 16, 16, 3), dtype=np.uint8)
    frames = torch.tensor(clips[0]).permute(0, 3, 1, 2) / 255
    big = torch.nn.functional.interpolate(frames, [112, 112], mode="bilinear", antialias=True)
    preset = get_model_weights("mc3_18").DEFAULT.transforms()
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (preset.mean, preset.std))
    with torch.no_grad():
        expected = model(((big - mean) / std).transpose(0, 1)[None]).softmax(-1).amax(-1)
    got = ask(confidence, backbone, backbone.pixel_values(clips))
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)
    assert 5 < confidence.gmacs < 20  # 43.3 on 16 frames, as torchvision prints


def test_a_model_runs_with_a_classifier_and_counts_it(tiny_backbone, tmp_path):
    folder = save_videomae(tmp_path, num_labels=3)
    rule = ThresholdBudget(base_ratio=0.5, small_ratio=0.25, alpha=0.0, beta=0.3)
    model = make_model(tiny_backbone, LiteConfig(budget=rule, confidence=f"hf:{folder}"))
    output = model(make_pixels(3), adaptive=True)
    assert output.budget.tolist() == rule.counts(output.confidence, 8).tolist()
    assert model.cost(4, adaptive=True).confidence == model.confidence.gmacs > 0


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("movinet", "a confidence is"),
        ("hf:", "a confidence is"),
        ("backbone:few", "not a keep ratio"),
        ("backbone:0", r"\(0, 1\]"),
        ("torchvision:resnet50@x", "mc3_18"),
        ("torchvision:mc3_18", "its weights"),
        ("torchvision:mc3_18@nowhere.pth", "cannot load"),
    ],
)
def test_what_is_no_confidence_is_refused(backbone, spec, message):
    with pytest.raises(ConfigError, match=message):
        load_confidence(spec, backbone)


def test_a_classifier_that_is_not_there_is_refused(backbone, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ConfigError, match="cannot load the classifier"):
        load_confidence(f"hf:{tmp_path / 'nothing'}", backbone)
