"""A save makes the folder the model in memory: all of it, nothing else, or nothing at all."""

from __future__ import annotations

import errno
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import VideoMAEForVideoClassification

from pipeline.backbones import backbone_digest, load_backbone
from pipeline.errors import BackboneError, ConfigError
from selector.budgets.clip_budget import ThresholdBudget
from selector.deploy.config import LiteConfig
from selector.deploy.model import LiteModel
from selector.training.files import save_selector
from tests.checkpoints import save_videomae
from tests.lite_models import make_model, make_pixels, make_selector

RULE = ThresholdBudget(base_ratio=0.5, small_ratio=0.25, alpha=0.2, beta=0.8)


def same(one: LiteModel, other: LiteModel) -> bool:
    """Whether both answer alike, with half of the tokens and with all."""
    pixels = make_pixels(3)
    return all(
        torch.equal(one(pixels, keep_ratio=ratio).logits, other(pixels, keep_ratio=ratio).logits)
        for ratio in (0.5, 1)
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def train(model: LiteModel) -> None:
    """One step that changes every weight of the backbone."""
    model.backbone.requires_grad_(True)
    model(make_pixels(2), keep_ratio=0.5, labels=torch.tensor([0, 3])).loss.backward()
    with torch.no_grad():
        for weight in model.backbone.parameters():
            weight -= 0.5 * weight.grad.sign() * weight.abs().mean()
    model.backbone.requires_grad_(False)


def test_what_the_backbone_learnt_is_saved(tiny_backbone, tmp_path):
    model = make_model(tiny_backbone)
    before = model(make_pixels(3)).logits
    train(model)
    assert (model(make_pixels(3)).logits - before).abs().max() > 0.01
    model.save_pretrained(tmp_path)
    loaded = LiteModel.from_pretrained(tmp_path)
    assert same(loaded, model)
    plain = VideoMAEForVideoClassification.from_pretrained(tmp_path / "backbone").eval()
    expected = plain(make_pixels(3)).logits
    torch.testing.assert_close(
        model(make_pixels(3), keep_ratio=1).logits, expected, rtol=0, atol=1e-5
    )
    # Another backbone than the selector's store was made with, and it says so.
    digest = backbone_digest(str(tmp_path / "backbone"))
    assert digest != model.backbone.digest == backbone_digest(str(tiny_backbone))
    assert json.loads((tmp_path / "selector/config.json").read_text())["backbone_digest"] == digest
    assert loaded.backbone.preprocessing == model.backbone.preprocessing


def test_what_is_unchanged_keeps_its_files_and_its_identity(tiny_backbone, tmp_path):
    make_model(tiny_backbone).save_pretrained(tmp_path)
    assert contents(tmp_path / "backbone") == contents(tiny_backbone)


@pytest.mark.parametrize("learnt", [False, True])
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_the_precision_in_memory_is_that_of_the_folder(tiny_backbone, tmp_path, precision, learnt):
    backbone = load_backbone(str(tiny_backbone), precision=precision)
    model = LiteModel(backbone, make_selector(backbone, str(tiny_backbone)))
    if learnt:
        train(model)
    model.save_pretrained(tmp_path)
    loaded = LiteModel.from_pretrained(tmp_path)
    assert loaded.dtype == model.dtype != torch.float32
    assert same(loaded, model)
    assert LiteModel.from_pretrained(tmp_path, precision="fp32").dtype == torch.float32


def test_class_names_given_in_memory_are_saved(tiny_backbone, tmp_path):
    model = make_model(tiny_backbone)
    model.backbone.model.config.id2label = {i: f"action {i}" for i in range(5)}
    model.save_pretrained(tmp_path)
    assert LiteModel.from_pretrained(tmp_path).id2label[3] == "action 3"


def test_the_selector_and_the_configuration_in_memory_are_saved(tiny_backbone, tmp_path):
    model = make_model(tiny_backbone)
    model.save_pretrained(tmp_path)
    with torch.no_grad():
        for weight in model.selector.parameters():
            weight.neg_()
    model.config = LiteConfig(spread=2.0, keep_ratio=0.25, budget=RULE, confidence="backbone:0.2")
    model.save_pretrained(tmp_path)
    loaded = LiteModel.from_pretrained(tmp_path)
    assert same(loaded, model)
    assert loaded.config == model.config
    got, expected = loaded(make_pixels(3), adaptive=True), model(make_pixels(3), adaptive=True)
    assert torch.equal(got.kept, expected.kept)


def test_nothing_of_an_earlier_save_survives(tiny_backbone, tmp_path):
    judge = save_videomae(tmp_path / "judge", num_labels=3)
    folder = tmp_path / "model"
    make_model(tiny_backbone, LiteConfig(budget=RULE, confidence=f"hf:{judge}")).save_pretrained(
        folder
    )
    weights = load_file(folder / "backbone" / "model.safetensors")
    save_file(weights, folder / "backbone" / "model-00001-of-00002.safetensors")
    (folder / "metrics.json").write_text("a training's")
    (folder / ".git").mkdir()
    make_model(tiny_backbone).save_pretrained(folder, with_backbone=False)
    assert sorted(path.name for path in folder.iterdir()) == [
        ".git", "README.md", "config.json", "lite.json", "metrics.json",
        "preprocessor_config.json", "selector", "video_preprocessor_config.json",
    ]  # fmt: skip
    make_model(tiny_backbone).save_pretrained(folder)
    assert sorted(path.name for path in (folder / "backbone").iterdir()) == [
        "config.json", "model.safetensors", "preprocessor_config.json",
    ]  # fmt: skip


def test_a_name_is_kept_only_where_it_says_all(tiny_backbone, tmp_path, monkeypatch):
    model = make_model(tiny_backbone)
    train(model)
    with pytest.raises(ConfigError, match="no longer the checkpoint.*save the model with its"):
        model.save_pretrained(tmp_path / "new", with_backbone=False)
    assert not (tmp_path / "new").exists()
    make_model(tiny_backbone).save_pretrained(tmp_path / "whole")
    before = contents(tmp_path / "whole")
    loaded = LiteModel.from_pretrained(tmp_path / "whole")
    with pytest.raises(ConfigError, match="which would lose it"):
        loaded.save_pretrained(tmp_path / "whole", with_backbone=False)
    assert contents(tmp_path / "whole") == before
    shutil.copytree(tiny_backbone, tmp_path / "here" / "checkpoint")
    monkeypatch.chdir(tmp_path / "here")
    make_model(Path("checkpoint")).save_pretrained(tmp_path / "named", with_backbone=False)
    monkeypatch.chdir(tmp_path)
    assert same(LiteModel.from_pretrained(tmp_path / "named"), make_model(tiny_backbone))


def quantised(model: LiteModel) -> None:
    classifier = model.backbone.model.classifier
    model.backbone.model.classifier = torch.nn.Sequential(classifier)


class Wrapped(torch.Tensor):
    """As torchao's weights are: no plain tensor, and not to be compared with one."""


def wrapped(model):
    layer = model.backbone.model.classifier
    layer.weight = torch.nn.Parameter(layer.weight.data.as_subclass(Wrapped), requires_grad=False)


def mixed(model: LiteModel) -> None:
    model.backbone.model.classifier.to(torch.bfloat16)


def cast_selector(model: LiteModel) -> None:
    model.selector.to(torch.bfloat16)


def trained_confidence(model: LiteModel) -> None:
    with torch.no_grad():
        next(model.confidence.parameters()).add_(1)


@pytest.mark.parametrize(
    ("change", "error", "fault"),
    [
        (quantised, BackboneError, "no plain checkpoint's model any more.*classifier"),
        (wrapped, BackboneError, "weights are Wrapped, which a checkpoint does not hold"),
        (mixed, BackboneError, r"weights are torch.bfloat16, torch.float32: cast them to one"),
        (cast_selector, ConfigError, "ranks in single precision"),
        (trained_confidence, ConfigError, "confidence in memory is no longer hf:"),
    ],
)
def test_what_cannot_be_written_as_it_is_leaves_the_folder_as_it_was(
    tiny_backbone, tmp_path, change, error, fault
):
    judge = save_videomae(tmp_path / "judge", num_labels=3)
    model = make_model(tiny_backbone, LiteConfig(budget=RULE, confidence=f"hf:{judge}"))
    model.save_pretrained(tmp_path / "model")
    before = contents(tmp_path / "model")
    change(model)
    with pytest.raises(error, match=fault):
        model.save_pretrained(tmp_path / "model")
    assert contents(tmp_path / "model") == before


@pytest.mark.parametrize(
    "where",
    [
        "selector.deploy.saving.save_selector",
        "selector.deploy.saving.save_backbone",
        "selector.deploy.config.LiteConfig.save",
        "transformers.VideoMAEForVideoClassification.save_pretrained",
    ],
)
def test_a_full_disk_leaves_the_old_model(tiny_backbone, tmp_path, monkeypatch, where):
    model = make_model(tiny_backbone)
    model.save_pretrained(tmp_path / "model")
    before = contents(tmp_path / "model")
    old = make_model(tiny_backbone)
    train(model)

    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(where, full)
    for folder in ("model", "new"):
        with pytest.raises((OSError, BackboneError), match="No space left"):
            model.save_pretrained(tmp_path / folder)
    assert contents(tmp_path / "model") == before
    assert same(LiteModel.from_pretrained(tmp_path / "model"), old)
    assert not (tmp_path / "new").exists()


def test_a_file_is_no_folder(tiny_backbone, tmp_path):
    (tmp_path / "model.pth").write_bytes(b"")
    with pytest.raises(ConfigError, match="is a file; give a folder"):
        make_model(tiny_backbone).save_pretrained(tmp_path / "model.pth")
    with pytest.raises(ConfigError, match="is a file; give the folder"):
        LiteModel.from_pretrained(tmp_path / "model.pth")


@pytest.mark.parametrize("name", ["config.json", "backbone/weights.bin", "selector/notes.txt"])
def test_what_is_anothers_is_not_replaced(tiny_backbone, tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text('{"model_type": "videomae"}')
    before = contents(tmp_path)
    with pytest.raises(ConfigError, match=f"holds {name.partition('/')[0]} of something else"):
        make_model(tiny_backbone).save_pretrained(tmp_path)
    assert contents(tmp_path) == before


def test_a_processor_and_a_configuration_that_were_saved_before_are_no_others(
    tiny_backbone, tmp_path
):
    model = make_model(tiny_backbone)
    model.save_pretrained(tmp_path / "first")
    (tmp_path / "second").mkdir()
    for name in ("config.json", "video_preprocessor_config.json"):
        shutil.copy(tmp_path / "first" / name, tmp_path / "second")
    model.save_pretrained(tmp_path / "second")
    assert same(LiteModel.from_pretrained(tmp_path / "second"), model)


def test_a_model_that_was_moved_into_a_trainings_folder_reads_the_same(tiny_backbone, tmp_path):
    model = make_model(tiny_backbone)
    save_selector(model.selector, tmp_path)
    loaded = LiteModel.from_pretrained(tmp_path)
    loaded.config = replace(loaded.config, spread=2.0)
    loaded.save_pretrained(tmp_path)
    assert same(LiteModel.from_pretrained(tmp_path), loaded)
