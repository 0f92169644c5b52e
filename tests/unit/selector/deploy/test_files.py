"""A model on disk: what train-selector writes is one, and what is saved works anywhere."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from huggingface_hub.errors import EntryNotFoundError
from huggingface_hub.utils import filter_repo_objects
from safetensors.torch import load_file
from torchvision.models import get_model

from pipeline.backbones import backbone_digest, load_backbone
from pipeline.errors import BackboneError, ConfigError
from selector.budgets.clip_budget import MassBudget, ThresholdBudget
from selector.deploy.config import LiteConfig
from selector.deploy.model import LiteModel
from selector.training.files import save_selector
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
        "README.md",
        "config.json",
        "lite.json",
        "preprocessor_config.json",
        "selector",
        "video_preprocessor_config.json",
    ]
    assert json.loads((tmp_path / "lite.json").read_text())["backbone"] == str(tiny_backbone)
    assert torch.equal(logits(LiteModel.from_pretrained(tmp_path)), logits(model))


def test_a_checkpoint_that_was_exchanged_since_is_not_answered_by(tiny_backbone, tmp_path):
    """No selector's digest is there to see it."""
    checkpoint = shutil.copytree(tiny_backbone, tmp_path / "checkpoint")
    model = LiteModel.from_backbone(checkpoint, "uniform")
    model.save_pretrained(tmp_path / "named", with_backbone=False)
    model.save_pretrained(tmp_path / "whole")
    assert torch.equal(logits(LiteModel.from_pretrained(tmp_path / "named")), logits(model))
    save_videomae(checkpoint, seed=7)
    with pytest.raises(ConfigError, match="was made with another checkpoint than"):
        LiteModel.from_pretrained(tmp_path / "named")
    for place, options in (("named", {"backbone": str(tiny_backbone)}), ("whole", {})):
        loaded = LiteModel.from_pretrained(tmp_path / place, **options)
        assert torch.equal(logits(loaded), logits(model))


def save_torchvision(folder: Path) -> Path:
    torch.manual_seed(0)
    folder.mkdir()
    torch.save(get_model("mc3_18", num_classes=3).state_dict(), folder / "mine.pth")
    return folder / "mine.pth"


def same_confidence(one: LiteModel, other: LiteModel) -> bool:
    weights, others = (model.confidence.state_dict() for model in (one, other))
    return weights.keys() == others.keys() and all(
        torch.equal(weights[name], others[name]) for name in weights
    )


@pytest.mark.parametrize(("kind", "with_backbone"), [("hf", True), ("torchvision", False)])
def test_a_local_confidence_travels_with_the_model(tiny_backbone, tmp_path, kind, with_backbone):
    if kind == "hf":
        confidence = f"hf:{save_videomae(tmp_path / 'judge', num_labels=3)}"
        stored = "hf:./confidence"
    else:
        confidence = f"torchvision:mc3_18@{save_torchvision(tmp_path / 'judge')}"
        stored = "torchvision:mc3_18@./confidence/mine.pth"
    model = make_model(tiny_backbone, LiteConfig(budget=RULE, confidence=confidence))
    model.save_pretrained(tmp_path / "model", with_backbone)
    shutil.rmtree(tmp_path / "judge")
    shutil.move(tmp_path / "model", tmp_path / "moved")
    for _ in range(2):  # as saved, and saved onto itself
        assert json.loads((tmp_path / "moved" / "lite.json").read_text())["confidence"] == stored
        loaded = LiteModel.from_pretrained(tmp_path / "moved")
        assert same_confidence(loaded, model)
        loaded.save_pretrained(tmp_path / "moved", with_backbone)


@pytest.mark.parametrize(
    "name", ["backbone:0.1", "hf:owner/name", "torchvision:mc3_18@KINETICS400_V1"]
)
def test_the_names_of_confidences_stay_names(tiny_backbone, tmp_path, name):
    make_model(tiny_backbone, LiteConfig(confidence=name)).save_pretrained(tmp_path)
    assert LiteConfig.load(tmp_path).confidence == name
    assert not (tmp_path / "confidence").exists()


def test_the_place_of_a_confidence_does_not_depend_on_where_one_stands(tmp_path, monkeypatch):
    """As calibrate writes it: outside the model's folder, and given relative to another one."""
    (tmp_path / "here" / "judge").mkdir(parents=True)
    (tmp_path / "model").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    LiteConfig(confidence="hf:judge").save(tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    place = LiteConfig.load(tmp_path / "model").confidence
    assert place == f"hf:{tmp_path / 'here' / 'judge'}"


def test_a_replaced_confidence_leaves_none_of_its_weights(tiny_backbone, tmp_path):
    """safetensors of the last export would be preferred to the new one's other format."""
    for seed in (1, 2):
        judge = save_videomae(tmp_path / f"judge{seed}", num_labels=3, seed=seed)
    state = load_file(judge / "model.safetensors")
    torch.save(state, judge / "pytorch_model.bin")
    (judge / "model.safetensors").unlink()
    for seed in (1, 2):
        config = LiteConfig(budget=RULE, confidence=f"hf:{tmp_path / f'judge{seed}'}")
        model = make_model(tiny_backbone, config)
        model.save_pretrained(tmp_path / "model")
    assert same_confidence(LiteModel.from_pretrained(tmp_path / "model"), model)


def test_a_download_fetches_the_confidence_too(tiny_backbone, tmp_path, monkeypatch):
    """The hub's client matches its patterns as it does here, and keeps links into its cache."""
    place = save_torchvision(tmp_path / "judge")
    config = LiteConfig(budget=RULE, confidence=f"torchvision:mc3_18@{place}")
    model = make_model(tiny_backbone, config)
    model.save_pretrained(tmp_path / "repo")

    def snapshot_download(repo_id, *, revision, allow_patterns):
        whole = [path for path in (tmp_path / "repo").rglob("*") if path.is_file()]
        names = [path.relative_to(tmp_path / "repo").as_posix() for path in whole]
        for name in filter_repo_objects(names, allow_patterns=allow_patterns):
            link = tmp_path / "cache" / name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(tmp_path / "repo" / name)
        return str(tmp_path / "cache")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    loaded = LiteModel.from_pretrained("me/lite")
    assert same_confidence(loaded, model)
    loaded.save_pretrained(tmp_path / "again")
    assert (tmp_path / "again" / "confidence" / "mine.pth").is_file()


@pytest.mark.parametrize(
    ("config", "place"),
    [
        (LiteConfig(), ("hub/learnt", "r1")),
        (LiteConfig(backbone="hub/other", revision="r2"), ("hub/other", "r2")),
        (LiteConfig(backbone="hub/other"), ("hub/other", None)),
    ],
)
def test_a_backbone_of_the_hub_is_asked_for_at_its_revision(
    tiny_backbone, tmp_path, monkeypatch, config, place
):
    selector = make_model(tiny_backbone).selector
    selector.config = replace(selector.config, backbone="hub/learnt", revision="r1")
    save_selector(selector, tmp_path / "model")
    config.save(tmp_path / "model")
    asked = []

    def load(name, revision, device, precision):
        asked.append((name, revision))
        return load_backbone(str(tiny_backbone), None, device, precision)

    monkeypatch.setattr("selector.deploy.files.load_backbone", load)
    monkeypatch.setattr("selector.deploy.saving.find_checkpoint", lambda *place: tiny_backbone)
    model = LiteModel.from_pretrained(tmp_path / "model")
    model.save_pretrained(tmp_path / "again", with_backbone=False)
    LiteModel.from_pretrained(tmp_path / "again")
    assert asked == [place, place]
    LiteModel.from_pretrained(tmp_path / "model", backbone="hub/third")
    assert asked[-1] == ("hub/third", None)


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


def test_a_configuration_of_the_first_schema_is_refused_with_what_it_lacks(tmp_path):
    text = json.dumps(LiteConfig().to_dict() | {"schema_version": 1, "sampling": "uniform"})
    (tmp_path / "lite.json").write_text(text)
    with pytest.raises(ConfigError, match=r"lite.json has schema version 1, .*sampling"):
        LiteConfig.load(tmp_path)


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"schema_version": 99}', '{"schema_version": 2, "budget": {}}']
)
def test_a_damaged_configuration_is_refused_naming_the_file(content, tmp_path):
    (tmp_path / "lite.json").write_text(content)
    with pytest.raises(ConfigError, match=r"lite.json|budget kind"):
        LiteConfig.load(tmp_path)


EARLIER = (
    "README.md",
    "notes/backbone.txt",
    "config.json",
    "lite.json",
    "selector.safetensors",
    "selector/config.json",
    "backbone/model-00001-of-00002.safetensors",
    "confidence/mine.pth",
)


@pytest.mark.parametrize(("card", "ignored"), [(None, []), ("somebody's", ["README.md"])])
def test_pushing_uploads_a_complete_model(tiny_backbone, tmp_path, monkeypatch, card, ignored):
    calls = {}

    class Hub:
        def create_repo(self, repo_id, *, private, exist_ok):
            calls["repo"] = (repo_id, private, exist_ok)

        def hf_hub_download(self, repo_id, name, *, cache_dir):
            if card is None:
                raise EntryNotFoundError(name)
            (tmp_path / name).write_text(card)
            return str(tmp_path / name)

        def upload_folder(
            self, *, repo_id, folder_path, commit_message, delete_patterns, ignore_patterns
        ):
            calls["ignored"] = ignore_patterns
            calls["logits"] = logits(LiteModel.from_pretrained(folder_path))
            calls["stale"] = set(filter_repo_objects(EARLIER, allow_patterns=delete_patterns))
            return f"https://hub/{repo_id}/commit/1"

    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    model = make_model(tiny_backbone)
    assert model.push_to_hub("me/lite", private=True) == "https://hub/me/lite/commit/1"
    assert calls["ignored"] == ignored
    assert calls["repo"] == ("me/lite", True, True)
    assert calls["stale"] == set(EARLIER) - {"README.md", "notes/backbone.txt"}
    assert torch.equal(calls["logits"], logits(model))


def test_a_hub_that_refuses_is_one_error_with_advice(tiny_backbone, monkeypatch):
    class Hub:
        def create_repo(self, repo_id, *, private, exist_ok):
            raise OSError("401 Unauthorized")

    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    with pytest.raises(ConfigError, match=r"cannot upload to 'me/lite'.*401.*logged in"):
        make_model(tiny_backbone).push_to_hub("me/lite")
