"""What LITE++ asks before it sets a budget: the backbone, or any other video classifier."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.models import get_model, get_model_weights
from transformers import VivitConfig, VivitForVideoClassification, VivitImageProcessor

from pipeline.backbones import load_backbone
from pipeline.errors import ConfigError
from selector.budgets.clip_budget import ThresholdBudget
from selector.budgets.confidence_names import load_confidence
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


def save_vivit(folder):
    """A small ViViT with 4 frames, whose processor subtracts an offset besides the mean."""
    torch.manual_seed(0)
    config = VivitConfig(
        image_size=16, num_frames=4, tubelet_size=[2, 8, 8], hidden_size=24, num_hidden_layers=1,
        num_attention_heads=2, intermediate_size=48, num_labels=3,
    )  # fmt: skip
    model = VivitForVideoClassification(config)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.1)
    model.save_pretrained(folder)
    VivitImageProcessor(
        size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}
    ).save_pretrained(folder)
    return model.eval()


def test_a_processor_that_does_more_than_normalise_is_followed(backbone, tmp_path):
    model = save_vivit(tmp_path)
    confidence = load_confidence(f"hf:{tmp_path}", backbone)
    clips = np.random.default_rng(0).integers(0, 256, (2, 4, 16, 16, 3), dtype=np.uint8)
    processor = VivitImageProcessor.from_pretrained(tmp_path)
    with torch.no_grad():
        inputs = processor([list(clip) for clip in clips], return_tensors="pt")
        expected = model(**inputs).logits.softmax(-1).amax(-1)
    torch.testing.assert_close(ask(confidence, backbone, backbone.pixel_values(clips)), expected)


def test_a_video_processor_alone_will_do(backbone, tmp_path):
    folder = save_videomae(tmp_path, num_labels=3)
    values = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").unlink()
    del values["image_processor_type"]
    values |= {"video_processor_type": "VideoMAEVideoProcessor", "image_mean": 0.25}
    (folder / "video_preprocessor_config.json").write_text(json.dumps(values))
    confidence = load_confidence(f"hf:{folder}", backbone)
    assert confidence.wanted.mean == pytest.approx((0.25,) * 3, abs=1e-6)
    assert confidence.wanted.std == pytest.approx((0.5,) * 3, abs=1e-6)


@pytest.mark.parametrize("part", ["config.json", "preprocessor_config.json"])
def test_a_checkpoints_own_code_is_never_run_nor_asked_about(backbone, tmp_path, monkeypatch, part):
    folder = save_videomae(tmp_path / "judge", num_labels=3)
    (folder / "mine.py").write_text(f"open({str(tmp_path / 'harm')!r}, 'w')\nclass Mine: pass\n")
    auto_map = dict.fromkeys(
        ("AutoConfig", "AutoModelForVideoClassification", "AutoImageProcessor"), "mine.Mine"
    )
    path = folder / part
    foreign = {"model_type": "mine", "image_processor_type": "Mine", "auto_map": auto_map}
    path.write_text(json.dumps(json.loads(path.read_text()) | foreign))
    asked = []
    monkeypatch.setattr("builtins.input", lambda question: asked.append(question) or "n")
    with pytest.raises(ConfigError, match="cannot load the classifier"):
        load_confidence(f"hf:{folder}", backbone)
    assert not asked
    assert not (tmp_path / "harm").exists()


def test_no_clips_are_not_shown_to_a_classifier(tiny_backbone, tmp_path):
    folder = save_videomae(tmp_path, num_labels=3)
    rule = ThresholdBudget(base_ratio=0.5, small_ratio=0.25, alpha=0.0, beta=0.3)
    model = make_model(tiny_backbone, LiteConfig(budget=rule, confidence=f"hf:{folder}"))
    output = model(make_pixels(0), adaptive=True)
    assert (output.logits.shape, output.confidence.shape) == ((0, 5), (0,))


@pytest.mark.parametrize("content", ["empty", "text", "a list", "other weights", "code"])
def test_a_file_that_is_no_state_dict_of_the_model_is_refused(backbone, tmp_path, content):
    path = tmp_path / "mine.pth"

    class Harm:
        def __reduce__(self):
            return Path.touch, (tmp_path / "harm",)

    if content == "empty":
        path.touch()
    elif content == "text":
        path.write_text("no weights")
    else:
        kinds = {"a list": [1], "other weights": {"x": torch.ones(3)}, "code": {"x": Harm()}}
        torch.save(kinds[content], path)
    with pytest.raises(ConfigError, match=r"cannot load the weights.*state dict [^\n]*$") as raised:
        load_confidence(f"torchvision:mc3_18@{path}", backbone)
    assert "weights_only" not in str(raised.value)
    assert not (tmp_path / "harm").exists()


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
        ("movinet:A0", "needs one of A0, A1, A2 and, after an @"),
        ("movinet:A0@nowhere.pth", "cannot load the weights 'nowhere.pth' of MoViNet A0"),
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
