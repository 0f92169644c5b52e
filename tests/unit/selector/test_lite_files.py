"""A model on disk: what train-selector writes is one, and what is saved works anywhere."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from pipeline.backbones import backbone_digest
from pipeline.errors import BackboneError, ConfigError
from selector.budget import MassBudget, ThresholdBudget
from selector.lite import LiteModel
from selector.lite_config import LiteConfig
from selector.saving import save_selector
from tests.checkpoints import save_videomae
from tests.lite_models import make_model, make_pixels

RULE = ThresholdBudget(base_ratio=0.5, small_ratio=0.25, alpha=0.2, beta=0.8)


def logits(model: LiteModel) -> torch.Tensor:
    return model(make_pixels(2)).logits


def test_a_selectors_folder_is_a_model(tiny_backbone, tmp_path):
    model = make_model(tiny_backbone)
    save_selector(model.selector, tmp_path)
    loaded = LiteModel.from_pretrained(tmp_path)
    assert loaded.config == LiteConfig()
    assert torch.equal(logits(loaded), logits(model))


def test_a_saved_model_needs_nothing_but_its_folder(tmp_path):
    checkpoint = save_videomae(tmp_path / "checkpoint")
    config = LiteConfig(keep_ratio=0.25, budget=RULE, confidence="backbone:0.2")
    model = make_model(checkpoint, config)
    model.save_pretrained(tmp_path / "model")
    digest = backbone_digest(str(checkpoint))
    shutil.rmtree(checkpoint)
    shutil.move(tmp_path / "model", tmp_path / "moved")
    loaded = LiteModel.from_pretrained(tmp_path / "moved")
    assert loaded.config == config
    assert loaded.backbone.digest == digest
    assert torch.equal(logits(loaded), logits(model))
    loaded.save_pretrained(tmp_path / "moved")  # onto itself
    assert torch.equal(logits(LiteModel.from_pretrained(tmp_path / "moved")), logits(model))


def test_a_model_saved_without_backbone_names_it(tiny_backbone, tmp_path):
    model = make_model(tiny_backbone)
    model.save_pretrained(tmp_path, with_backbone=False)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "config.json",
        "lite.json",
        "selector.safetensors",
    ]
    assert json.loads((tmp_path / "lite.json").read_text())["backbone"] == str(tiny_backbone)
    assert torch.equal(logits(LiteModel.from_pretrained(tmp_path)), logits(model))


def test_a_moved_backbone_can_be_named(tmp_path):
    checkpoint = save_videomae(tmp_path / "old")
    save_selector(make_model(checkpoint).selector, tmp_path / "model")
    checkpoint.rename(tmp_path / "new")
    with pytest.raises(BackboneError, match="say where"):
        LiteModel.from_pretrained(tmp_path / "model")
    loaded = LiteModel.from_pretrained(tmp_path / "model", backbone=str(tmp_path / "new"))
    assert logits(loaded).shape == (2, 5)


def test_another_backbone_is_refused_with_the_fields_that_differ(tiny_backbone, tmp_path):
    save_selector(make_model(tiny_backbone).selector, tmp_path / "model")
    other = save_videomae(tmp_path / "other", seed=7)
    with pytest.raises(ConfigError, match="backbone_digest"):
        LiteModel.from_pretrained(tmp_path / "model", backbone=str(other))


def test_a_replaced_checkpoint_inside_the_folder_is_refused(tiny_backbone, tmp_path):
    make_model(tiny_backbone).save_pretrained(tmp_path / "model")
    save_videomae(tmp_path / "model" / "backbone", seed=7)
    with pytest.raises(ConfigError, match="backbone_digest"):
        LiteModel.from_pretrained(tmp_path / "model")


def test_no_such_model_says_what_to_give(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ConfigError, match="neither a folder here nor on the hub"):
        LiteModel.from_pretrained(str(tmp_path / "nothing"))
    with pytest.raises(ConfigError, match="no selector"):
        LiteModel.from_pretrained(tmp_path)


@pytest.mark.parametrize("config", [LiteConfig(), LiteConfig(budget=MassBudget(mass=0.7))])
def test_the_configuration_comes_back(config, tmp_path):
    config.save(tmp_path)
    assert LiteConfig.load(tmp_path) == config


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"schema_version": 99}', '{"schema_version": 1, "budget": {}}']
)
def test_a_damaged_configuration_is_refused_naming_the_file(content, tmp_path):
    (tmp_path / "lite.json").write_text(content)
    with pytest.raises(ConfigError, match=r"lite.json|budget kind"):
        LiteConfig.load(tmp_path)


def test_pushing_uploads_a_complete_model(tiny_backbone, monkeypatch):
    calls = {}

    class Hub:
        def create_repo(self, repo_id, *, private, exist_ok):
            calls["repo"] = (repo_id, private, exist_ok)

        def upload_folder(self, *, repo_id, folder_path, commit_message):
            calls["logits"] = logits(LiteModel.from_pretrained(folder_path))
            return f"https://hub/{repo_id}/commit/1"

    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    model = make_model(tiny_backbone)
    assert model.push_to_hub("me/lite", private=True) == "https://hub/me/lite/commit/1"
    assert calls["repo"] == ("me/lite", True, True)
    assert torch.equal(calls["logits"], logits(model))


def test_a_hub_that_refuses_is_one_error_with_advice(tiny_backbone, monkeypatch):
    class Hub:
        def create_repo(self, repo_id, *, private, exist_ok):
            raise OSError("401 Unauthorized")

    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    with pytest.raises(ConfigError, match=r"cannot upload to 'me/lite'.*401.*logged in"):
        make_model(tiny_backbone).push_to_hub("me/lite")
