"""A saved model in plain transformers code: loading, pipeline, Trainer, saving, export."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import (
    AutoConfig,
    AutoModelForVideoClassification,
    AutoVideoProcessor,
    Trainer,
    TrainingArguments,
    VideoMAEForVideoClassification,
    VideoMAEImageProcessor,
    pipeline,
)

import selector  # noqa: F401  (registers)
from pipeline.decode import DecodePool
from pipeline.errors import ConfigError, DecodeError
from selector.budgets.clip_budget import ThresholdBudget
from selector.deploy.auto import LiteForVideoClassification
from selector.deploy.config import LiteConfig
from selector.deploy.model import LiteModel
from selector.deploy.predict import predict_videos
from tests.checkpoints import save_timesformer, save_videomae, save_vivit, save_vjepa2
from tests.lite_models import make_model, make_pixels
from tests.videos import write_video


@pytest.fixture(scope="module")
def lite(tmp_path_factory):
    """Its crop is smaller than what the frames are resized to."""
    checkpoint = save_videomae(tmp_path_factory.mktemp("checkpoint") / "tiny", short_side=20)
    return make_model(checkpoint, LiteConfig(spread=2.0))


@pytest.fixture(scope="module")
def folder(lite, tmp_path_factory):
    place = tmp_path_factory.mktemp("model") / "saved"
    lite.save_pretrained(place)
    return str(place)


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return str(write_video(tmp_path_factory.mktemp("videos") / "clip.mp4", 9, 48, 64))


def test_importing_selector_costs_nothing_and_registers_in_any_order(folder):
    script = f"""
import sys, selector
print("torch" in sys.modules, "transformers" in sys.modules)
from transformers import AutoConfig
print(type(AutoConfig.from_pretrained({folder!r})).__name__)
from transformers import AutoVideoProcessor, AutoModelForVideoClassification
print(type(AutoVideoProcessor.from_pretrained({folder!r})).__name__)
print(type(AutoModelForVideoClassification.from_pretrained({folder!r})).__name__)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == [
        "False", "False", "LiteVideoConfig", "LiteVideoProcessor", "LiteForVideoClassification",
    ], done.stderr  # fmt: skip


def test_the_auto_class_gives_the_same_model(lite, folder):
    model = AutoModelForVideoClassification.from_pretrained(folder, device_map="auto")
    labels = torch.tensor([0, 3, 1])
    output = model(make_pixels(3), labels=labels)
    expected = lite(make_pixels(3).to(model.device))
    assert torch.equal(output["logits"].cpu(), expected.logits.cpu())
    assert output.budget.tolist() == [4, 4, 4]
    assert torch.equal(output.scores.cpu(), expected.scores.cpu())
    # transformers draws new weights for modules that it did not load itself, unless told not to.
    weights, others = model.lite.state_dict(), lite.state_dict()
    assert weights.keys() == others.keys()
    assert all(torch.equal(weights[name].cpu(), others[name]) for name in others)
    loss = F.cross_entropy(expected.logits, labels)
    torch.testing.assert_close(output.loss.cpu(), loss, rtol=0, atol=0)
    assert model.config.id2label == {i: f"class {i}" for i in range(5)}
    assert (model.config.num_frames, model.dtype) == (4, torch.float32)
    assert not model.training
    # All tokens: the plain model, without anything of ours.
    plain = VideoMAEForVideoClassification.from_pretrained(f"{folder}/backbone").eval()
    torch.testing.assert_close(
        model(make_pixels(3), keep_ratio=1).logits,
        plain(make_pixels(3)).logits,
        rtol=0,
        atol=1e-5,
    )
    as_tuple = model(make_pixels(3), return_dict=False)
    assert torch.equal(as_tuple[0], expected.logits)


@pytest.mark.parametrize("place", ["cpu", torch.device("cpu")])
def test_the_device_is_the_one_asked_for(folder, place):
    for device_map in (place, {"": place}):
        model = AutoModelForVideoClassification.from_pretrained(folder, device_map=device_map)
        assert model.device == torch.device("cpu")
        assert {weight.device for weight in model.parameters()} == {torch.device("cpu")}


@pytest.mark.parametrize("dtype", [torch.bfloat16, "float16"])
def test_the_precision_is_the_one_asked_for(folder, dtype):
    model = AutoModelForVideoClassification.from_pretrained(folder, dtype=dtype)
    assert str(model.dtype).endswith(str(dtype).removeprefix("torch."))
    assert {w.dtype for w in model.lite.selector.parameters()} == {torch.float32}
    assert model(make_pixels(2)).logits.dtype == torch.float32


@pytest.mark.parametrize("cast", ["half", "bfloat16"])
def test_casting_a_loaded_model_is_loading_it_so(folder, tmp_path, cast):
    precision = {"half": torch.float16, "bfloat16": torch.bfloat16}[cast]
    model = getattr(AutoModelForVideoClassification.from_pretrained(folder), cast)()
    loaded = AutoModelForVideoClassification.from_pretrained(folder, dtype=precision)
    weights, expected = model.state_dict(), loaded.state_dict()
    assert list(weights) == list(expected)
    assert all(weights[k].dtype == expected[k].dtype for k in expected)
    assert all(torch.equal(weights[k], expected[k]) for k in expected)
    found, output = model(make_pixels(3)), loaded(make_pixels(3))
    assert torch.equal(found.scores, output.scores)
    assert torch.equal(found.logits, output.logits)
    model.save_pretrained(tmp_path)
    again = AutoModelForVideoClassification.from_pretrained(tmp_path)
    assert again.dtype == precision
    # The folder's own, said or not; plain transformers takes float32 where it is not said.
    auto = AutoModelForVideoClassification.from_pretrained(tmp_path, dtype="auto")
    assert auto.dtype == precision
    assert torch.equal(again(make_pixels(3)).logits, output.logits)


def test_the_pipeline_answers_as_predict_does(lite, folder, video):
    classify = pipeline("video-classification", model=folder)
    with DecodePool(1) as pool:
        (expected,) = predict_videos(lite, [video], pool)
    found = classify(video, top_k=5)
    assert [each["label"] for each in found] == [name for _, name, _ in expected.top]
    np.testing.assert_allclose(
        [each["score"] for each in found], [value for _, _, value in expected.top], rtol=1e-6
    )
    with pytest.raises(ConfigError, match="takes 4 frames of a clip, not 8"):
        classify(video, num_frames=8)
    with pytest.raises(DecodeError, match="nothing.mp4"):
        classify("nothing.mp4")


def test_frames_that_were_decoded_elsewhere_are_prepared_as_the_backbone_has_it(folder):
    frames = np.random.default_rng(1).integers(0, 256, (4, 24, 32, 3)).astype(np.uint8)
    processor = AutoVideoProcessor.from_pretrained(folder)
    found = processor([frames], return_tensors="pt")["pixel_values"]
    theirs = VideoMAEImageProcessor.from_pretrained(f"{folder}/backbone")
    expected = theirs(list(frames), return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_a_trainer_evaluates(lite, folder, tmp_path):
    pytest.importorskip("accelerate", reason="NO TRAINER: pip install accelerate")
    model = AutoModelForVideoClassification.from_pretrained(folder)
    pixels, labels = make_pixels(5), torch.tensor([0, 1, 2, 3, 4])
    clips = [{"pixel_values": p, "labels": n} for p, n in zip(pixels, labels, strict=True)]
    arguments = TrainingArguments(
        str(tmp_path / "out"), report_to="none", per_device_eval_batch_size=2, use_cpu=True
    )
    trainer = Trainer(
        model, arguments, eval_dataset=clips, compute_metrics=lambda p: {"n": p.predictions.shape}
    )
    found = trainer.evaluate()
    expected = F.cross_entropy(lite(pixels).logits, labels)
    assert found["eval_loss"] == pytest.approx(expected.item(), abs=1e-5)
    assert found["eval_n"] == (5, 5)  # the logits alone were gathered
    trainer.save_model(str(tmp_path / "saved"))
    again = AutoModelForVideoClassification.from_pretrained(tmp_path / "saved")
    assert torch.equal(again(pixels).logits, model(pixels).logits)


def test_saving_in_several_files_and_with_other_class_names(folder, tmp_path):
    model = AutoModelForVideoClassification.from_pretrained(folder)
    expected = model(make_pixels(3)).logits
    model.config.id2label = {i: f"action {i}" for i in range(5)}
    model.save_pretrained(tmp_path / "new", max_shard_size="20KB")
    assert len(list((tmp_path / "new" / "backbone").glob("model-*-of-*.safetensors"))) > 1
    loaded = AutoModelForVideoClassification.from_pretrained(tmp_path / "new")
    assert torch.equal(loaded(make_pixels(3)).logits, expected)
    assert loaded.config.id2label[3] == "action 3" == loaded.lite.id2label[3]
    assert loaded.config.label2id["action 3"] == 3


# What torch.jit.script says of itself.
@pytest.mark.filterwarnings("ignore:.*torch.jit.script:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
def test_one_graph_for_any_batch_size(folder):
    model = AutoModelForVideoClassification.from_pretrained(folder)
    batch = {"pixel_values": {0: torch.export.Dim("batch")}}
    program = torch.export.export(model, (make_pixels(2),), dynamic_shapes=batch)
    for num in (1, 3):
        expected = model(make_pixels(num)).logits
        torch.testing.assert_close(
            program.module()(make_pixels(num)).logits, expected, rtol=0, atol=1e-5
        )
    with pytest.raises(ConfigError, match="use torch.export.export or torch.compile"):
        torch.jit.script(model)


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"quantization_config": {}}, "cannot be loaded with quantization_config"),
        ({"attn_implementation": "flash_attention_2"}, "cannot be loaded with attn_implementation"),
        ({"dtype": torch.float64}, "runs in torch.float32, torch.bfloat16"),
        ({"device_map": {"lite": 0, "head": 1}}, "lies on one device"),
        ({"device_map": "balanced"}, "lies on one device"),
        ({"device_map": "meta"}, "lies on one device"),
        ({"device_map": -1}, "lies on one device.*'cuda:-1'"),
        ({"device_map": {"": 99}}, "device_map='cuda:99' cannot be used here: "),
        ({"id2label": {0: "a", 1: "b"}}, "head has 5 classes, and 2 names were given"),
        ({"keep_ration": 0.5}, "cannot be loaded with keep_ration=0.5"),
        ({"adapter_kwargs": {"_adapter_model_path": "x"}}, "cannot be loaded with adapter_kwargs"),
    ],
)
def test_what_means_nothing_here_is_refused(folder, options, fault):
    config = AutoConfig.from_pretrained(folder)
    if "id2label" in options:
        config.id2label = options.pop("id2label")
    with pytest.raises(ConfigError, match=fault):
        LiteForVideoClassification.from_pretrained(folder, config=config, **options)


def test_where_an_adapter_was_looked_for_is_no_adapter(folder):
    """What the auto class passes along once peft is installed."""
    options = {"adapter_kwargs": {"revision": None, "token": "hf_x"}}
    assert LiteForVideoClassification.from_pretrained(folder, **options).config.num_labels == 5


def test_random_weights_are_refused(folder):
    with pytest.raises(ConfigError, match="is made from a trained one"):
        AutoModelForVideoClassification.from_config(AutoConfig.from_pretrained(folder))
    model = AutoModelForVideoClassification.from_pretrained(folder)
    with pytest.raises(ConfigError, match="not saved with safe_serialization=False"):
        model.save_pretrained("nowhere", safe_serialization=False)


def test_a_folder_of_an_earlier_release_still_loads(lite, folder, tmp_path):
    """Its selector lay beside `lite.json`, and its `config.json` was the selector's."""
    old = tmp_path / "old"
    old.mkdir()
    shutil.copytree(Path(folder) / "backbone", old / "backbone")
    for file in (Path(folder) / "selector").iterdir():
        shutil.copyfile(file, old / file.name)
    values = json.loads((Path(folder) / "lite.json").read_text())
    for name in ("adaptive", "measured", "license"):
        del values[name]
    (old / "lite.json").write_text(json.dumps(values))
    loaded = LiteModel.from_pretrained(old)
    assert torch.equal(loaded(make_pixels(3)).logits, lite(make_pixels(3)).logits)
    loaded.save_pretrained(old)  # makes it one of this release
    assert not (old / "selector.safetensors").exists()
    model = AutoModelForVideoClassification.from_pretrained(old)
    assert torch.equal(model(make_pixels(3)).logits, lite(make_pixels(3)).logits)


def test_two_selectors_in_one_folder_are_refused(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "model")
    for file in (tmp_path / "model" / "selector").iterdir():
        shutil.copyfile(file, tmp_path / "model" / file.name)
    with pytest.raises(ConfigError, match="holds two selectors"):
        LiteModel.from_pretrained(tmp_path / "model")


def test_the_card_says_what_it_is_and_a_users_own_stays(lite, folder, tmp_path):
    card = (Path(folder) / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: transformers\npipeline_tag: video-classification\n")
    assert 'license: "unknown"' in card
    assert "method `lite`, keep ratio 0.5, spread 2" in card
    assert "Not measured here" in card
    # The checkpoint lies on this machine: its name is nobody else's.
    assert "base_model:" not in card
    assert lite.backbone_name not in card
    (tmp_path / "README.md").write_text("mine")
    lite.save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text() == "mine"
    (tmp_path / "README.md").write_text(card + "a user's line")
    lite.save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text() == card


def test_an_adaptive_model_is_adaptive_unless_a_ratio_is_given(tmp_path, video):
    rule = ThresholdBudget(base_ratio=0.75, small_ratio=0.25, alpha=0.0, beta=1.0)
    config = LiteConfig(budget=rule, confidence="backbone:0.25")
    checkpoint = save_videomae(tmp_path / "checkpoint")
    plain = make_model(checkpoint, config)
    seen = plain(make_pixels(8), adaptive=True).confidence
    plain.config = config = replace(config, budget=replace(rule, alpha=seen.median().item()))
    expected = plain(make_pixels(8), adaptive=True)
    assert set(expected.budget.tolist()) == {2, 6}  # the case is there
    assert plain(make_pixels(8)).budget.tolist() == [4] * 8
    make_model(checkpoint, replace(config, adaptive=True)).save_pretrained(tmp_path / "model")
    model = AutoModelForVideoClassification.from_pretrained(tmp_path / "model")
    assert torch.equal(model(make_pixels(8)).logits, expected.logits)
    assert model(make_pixels(8), adaptive=False).budget.tolist() == [4] * 8
    assert model(make_pixels(8), keep_ratio=0.25).budget.tolist() == [2] * 8
    with DecodePool(1) as pool:
        (found,) = predict_videos(model.lite, [video], pool)
        (asked,) = predict_videos(plain, [video], pool, adaptive=True)
    assert (found.kept_tokens, found.gmacs) == (asked.kept_tokens, asked.gmacs)
    # What was calibrated for one method is not another's.
    other = LiteModel.from_pretrained(tmp_path / "model", spread=2.0)
    assert (other.config.adaptive, other.config.budget) == (False, None)
    with pytest.raises(ConfigError, match="adaptive unless told otherwise needs a budget"):
        LiteConfig(adaptive=True)


@pytest.mark.parametrize("save", [save_timesformer, save_vivit, save_vjepa2])
def test_every_family_is_exported(tmp_path, save):
    lite = LiteModel.from_backbone(save(tmp_path / "checkpoint"), "uniform")
    lite.save_pretrained(tmp_path / "model")
    backbone, side, short = lite.backbone, lite.backbone.image_size, lite.backbone.short_side
    shape = (backbone.num_frames, short, short, 3)  # needs no resizing, only the crop
    clip = np.random.default_rng(2).integers(0, 256, shape, np.uint8)
    inner = slice((short - side) // 2, (short - side) // 2 + side)
    frames = AutoVideoProcessor.from_pretrained(tmp_path / "model")([clip], return_tensors="pt")
    model = AutoModelForVideoClassification.from_pretrained(tmp_path / "model")
    expected = lite(backbone.pixel_values(clip[None, :, inner, inner])).logits
    torch.testing.assert_close(model(**frames).logits, expected, rtol=0, atol=1e-5)
