"""The adapter is the Hugging Face model, token by token, and loads nothing unfaithfully."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import VideoMAEForVideoClassification, VideoMAEImageProcessor

from pipeline.backbones import backbone_digest, load_backbone
from pipeline.backbones.tokens import Reduction, reduce
from pipeline.errors import BackboneError, ConfigError
from tests.checkpoints import TINY, save_videomae


@pytest.fixture
def clips() -> np.ndarray:
    rng = np.random.default_rng(0)
    size = TINY["image_size"]
    return rng.integers(0, 256, (2, TINY["num_frames"], size, size, 3), dtype=np.uint8)


@pytest.fixture
def checkpoint(tiny_backbone: Path, tmp_path: Path) -> Path:
    """A private copy that a test may damage."""
    return Path(shutil.copytree(tiny_backbone, tmp_path / "checkpoint"))


def edit_weights(folder: Path, change) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def edit_json(path: Path, **fields) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def test_logits_equal_the_plain_model(tiny_backbone: Path, clips: np.ndarray):
    backbone = load_backbone(str(tiny_backbone))
    plain = VideoMAEForVideoClassification.from_pretrained(tiny_backbone).eval()
    pixel_values = backbone.pixel_values(clips)
    with torch.no_grad():
        torch.testing.assert_close(
            backbone(pixel_values), plain(pixel_values).logits, rtol=0, atol=1e-5
        )


def test_pixel_values_equal_the_checkpoints_processor(tiny_backbone: Path, clips: np.ndarray):
    processor = VideoMAEImageProcessor.from_pretrained(tiny_backbone)
    theirs = processor([list(clip) for clip in clips], return_tensors="pt")["pixel_values"]
    assert torch.equal(load_backbone(str(tiny_backbone)).pixel_values(clips), theirs)


def test_token_order_does_not_matter_and_subsets_run(tiny_backbone: Path, clips: np.ndarray):
    backbone = load_backbone(str(tiny_backbone))
    with torch.no_grad():
        tokens = backbone.embed(backbone.pixel_values(clips))
        assert tokens.values.shape == (2, backbone.grid.num_tokens, backbone.hidden_size)
        shuffled = reduce(tokens, Reduction(torch.randperm(tokens.num).expand(2, -1)))
        torch.testing.assert_close(backbone.run(shuffled), backbone.run(tokens), rtol=0, atol=1e-5)
        one = reduce(tokens, Reduction(torch.zeros(2, 1, dtype=torch.long)))
        assert backbone.run(one).shape == (2, backbone.num_classes)


def test_describes_itself(tiny_backbone: Path):
    backbone = load_backbone(str(tiny_backbone))
    assert backbone.grid == (2, 2, 2)
    assert backbone.label_names == [f"class {i}" for i in range(5)]
    assert backbone.num_layers == 3
    assert not any(p.requires_grad for p in backbone.parameters())
    assert backbone.resolve_layer("blocks.-1.mlp") == "blocks.2.mlp"
    with pytest.raises(ConfigError, match=r"blocks\.7\.mlp.*-3 to 2"):
        backbone.resolve_layer("blocks.7.mlp")


OLD_NAMES = {"query.bias": "q_bias", "value.bias": "v_bias"}  # as the hub's checkpoints have them


@pytest.mark.parametrize("names", [OLD_NAMES, {new: old for old, new in OLD_NAMES.items()}])
def test_both_spellings_of_the_biases_load_alike(checkpoint: Path, clips: np.ndarray, names: dict):
    before = load_backbone(str(checkpoint))

    def rename(weights: dict) -> None:
        for key in list(weights):
            for old, new in names.items():
                if key.endswith(old):
                    weights[key.removesuffix(old) + new] = weights.pop(key)

    edit_weights(checkpoint, rename)
    after = load_backbone(str(checkpoint))
    with torch.no_grad():
        pixel_values = before.pixel_values(clips)
        torch.testing.assert_close(after(pixel_values), before(pixel_values), rtol=0, atol=0)


def test_a_release_that_zeroes_biases_is_caught(checkpoint: Path, monkeypatch):
    original = VideoMAEForVideoClassification.from_pretrained

    def zeroing(*args, **kwargs):
        model, info = original(*args, **kwargs)
        model.videomae.encoder.layer[1].attention.attention.query.bias.data.zero_()
        return model, info

    monkeypatch.setattr(VideoMAEForVideoClassification, "from_pretrained", zeroing)
    with pytest.raises(
        BackboneError, match=r"layer\.1\.attention\.attention\.(query\.bias|q_bias)"
    ):
        load_backbone(str(checkpoint))


@pytest.mark.parametrize("key", ["classifier.weight", "fc_norm.bias"])
def test_missing_keys_are_refused(checkpoint: Path, key: str):
    edit_weights(checkpoint, lambda weights: weights.pop(key))
    with pytest.raises(BackboneError, match=f"missing keys: {key}"):
        load_backbone(str(checkpoint))


def test_unexpected_and_misshapen_keys_are_refused(checkpoint: Path):
    edit_weights(checkpoint, lambda weights: weights.update(stranger=torch.ones(2)))
    with pytest.raises(BackboneError, match="unexpected keys: stranger"):
        load_backbone(str(checkpoint))
    edit_json(checkpoint / "config.json", hidden_size=48)
    with pytest.raises(BackboneError, match="does not load|cannot load"):
        load_backbone(str(checkpoint))


def test_other_architectures_and_pooling_are_refused(checkpoint: Path):
    edit_json(checkpoint / "config.json", model_type="clip")
    with pytest.raises(BackboneError, match="'clip' checkpoint; supported"):
        load_backbone(str(checkpoint))
    edit_json(checkpoint / "config.json", model_type="vivit")
    with pytest.raises(BackboneError, match="cannot load|does not load faithfully"):
        load_backbone(str(checkpoint))
    edit_json(checkpoint / "config.json", model_type="videomae", use_mean_pooling=False)
    with pytest.raises(BackboneError, match="use_mean_pooling is false|does not load faithfully"):
        load_backbone(str(checkpoint))


def test_a_processor_that_cannot_be_reproduced_is_refused(checkpoint: Path):
    edit_json(checkpoint / "preprocessor_config.json", resample=3)
    with pytest.raises(BackboneError, match="resample is 3, not 2"):
        load_backbone(str(checkpoint))
    (checkpoint / "preprocessor_config.json").unlink()
    with pytest.raises(BackboneError, match="holds no preprocessor_config.json"):
        load_backbone(str(checkpoint))


def test_unknown_checkpoints_say_where_they_were_looked_for(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(BackboneError, match="neither a folder here nor a checkpoint on the hub"):
        load_backbone("nobody/nothing")
    with pytest.raises(BackboneError, match="holds no config.json"):
        load_backbone(str(tmp_path))


def test_digest_follows_weights_and_configuration(checkpoint: Path, tmp_path: Path):
    first = backbone_digest(str(checkpoint))
    assert first == load_backbone(str(checkpoint)).digest
    moved = shutil.move(checkpoint, tmp_path / "elsewhere")
    assert backbone_digest(str(moved)) == first
    edit_json(Path(moved) / "preprocessor_config.json", image_mean=[0.1, 0.1, 0.1])
    assert backbone_digest(str(moved)) != first


def test_short_side_may_exceed_the_crop(tmp_path: Path):
    backbone = load_backbone(str(save_videomae(tmp_path, short_side=20)))
    assert (backbone.short_side, backbone.image_size) == (20, 16)
