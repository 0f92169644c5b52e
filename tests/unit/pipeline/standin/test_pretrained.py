"""Starting from a checkpoint that transformers pre-trained: the encoder is the file's."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.backbones import load_backbone
from pipeline.errors import BackboneError
from pipeline.standin.finetune import open_checkpoint
from pipeline.standin.pretrained import NO_CLASS
from tests.unit.pipeline.standin.test_finetune import make_table, rows, train


def save_pretraining(folder, mean_pooling):
    """A tiny published pre-training: what `VideoMAEForPreTraining.save_pretrained` writes."""
    from transformers import VideoMAEConfig, VideoMAEForPreTraining, VideoMAEImageProcessor

    torch.manual_seed(0)
    config = VideoMAEConfig(
        image_size=16,
        patch_size=8,
        num_frames=4,
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=32,
        decoder_hidden_size=12,
        decoder_num_hidden_layers=1,
        decoder_num_attention_heads=2,
        decoder_intermediate_size=16,
        use_mean_pooling=mean_pooling,
    )
    model = VideoMAEForPreTraining(config)
    for weights in model.parameters():  # norms and biases are 1 and 0 else, whatever is loaded
        torch.nn.init.normal_(weights, std=0.3)
    model.save_pretrained(folder)
    processor = VideoMAEImageProcessor(
        size={"shortest_edge": 16},
        crop_size={"height": 16, "width": 16},
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
    )
    processor.save_pretrained(folder)
    return model


@pytest.mark.parametrize("mean_pooling", [False, True])
def test_the_encoder_is_that_of_the_file(tmp_path, mean_pooling):
    published = save_pretraining(tmp_path, mean_pooling).eval()
    backbone = open_checkpoint(str(tmp_path))
    assert backbone.label_names == [NO_CLASS]
    assert (backbone.model.fc_norm is not None) == mean_pooling
    pixels = torch.rand(2, 4, 3, 16, 16)
    with torch.inference_mode():
        expected = published.videomae(pixels, torch.zeros(2, 8, dtype=torch.bool))
        found = backbone.model.videomae(pixels)
    torch.testing.assert_close(found.last_hidden_state, expected.last_hidden_state)


def test_a_training_starts_from_it(tmp_path):
    published = save_pretraining(tmp_path / "published", False)
    root = make_table(tmp_path, rows())
    result = train(
        root,
        tmp_path / "out",
        *("--init", str(tmp_path / "published"), "--sampling", "stride:1", "--lr", "1e-9"),
    )
    assert result.exit_code == 0, result.output
    trained = load_backbone(str(tmp_path / "out"))
    assert trained.label_names == ["a", "b"]
    # A rate of 1e-9 moves nothing visibly.
    found, expected = (m.videomae.state_dict() for m in (trained.model, published))
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-6, rtol=0)


def test_a_file_that_lacks_a_weight_is_refused(tmp_path):
    save_pretraining(tmp_path, False)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["videomae.encoder.layer.1.output.dense.weight"]
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(BackboneError, match=r"layer\.1\.output\.dense\.weight"):
        open_checkpoint(str(tmp_path))
