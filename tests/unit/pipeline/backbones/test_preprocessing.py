"""What a checkpoint's processor says is read in every form that transformers writes, or refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import VideoMAEImageProcessor

from pipeline.backbones import load_backbone
from pipeline.errors import BackboneError

IMAGE, VIDEO = "preprocessor_config.json", "video_preprocessor_config.json"


@pytest.fixture
def checkpoint(tiny_backbone: Path, tmp_path: Path) -> Path:
    """A private copy that a test may change."""
    return Path(shutil.copytree(tiny_backbone, tmp_path / "checkpoint"))


@pytest.fixture
def clips() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (2, 4, 16, 16, 3), dtype=np.uint8)


def edit(path: Path, **fields: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def test_a_video_processor_alone_is_enough(checkpoint, clips):
    VideoMAEVideoProcessor = pytest.importorskip("transformers").VideoMAEVideoProcessor
    (checkpoint / IMAGE).unlink()
    processor = VideoMAEVideoProcessor(
        size={"shortest_edge": 16},
        crop_size={"height": 16, "width": 16},
        image_mean=[0.1, 0.2, 0.3],
        image_std=[0.4, 0.5, 0.6],
    )
    processor.save_pretrained(checkpoint)
    assert (checkpoint / VIDEO).is_file()
    theirs = processor(list(torch.from_numpy(clips).movedim(-1, 2)), return_tensors="pt")
    ours = load_backbone(str(checkpoint)).pixel_values(clips)
    assert torch.equal(ours, theirs["pixel_values"])


@pytest.mark.parametrize("mean", [0, 0.25, [0.25], [0.1, 0.2, 0.3]])
def test_one_number_stands_for_all_channels(checkpoint, clips, mean):
    edit(checkpoint / IMAGE, image_mean=mean)
    each = np.array(mean if isinstance(mean, list) else [mean])
    expected = (clips / 255.0 - each) / 0.5
    ours = load_backbone(str(checkpoint)).pixel_values(clips).movedim(2, -1)
    np.testing.assert_allclose(ours.numpy(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"image_mean": [0.5, 0.5]}, "not one number or one for each of 3"),
        ({"image_mean": "grey"}, "holds 'grey', not a number"),
        ({"image_mean": None}, "holds None, not a number"),
        ({"image_std": 0}, "image_std is 0, not above 0"),
        ({"image_std": [0.5, float("nan"), 0.5]}, "holds nan, not a number"),
        ({"rescale_factor": 0}, "rescale_factor is 0"),
        ({"do_rescale": False}, "do_rescale is False, not True"),
        ({"resample": None}, "resample is None, not 2"),
        ({"size": None}, "size is {}"),
        ({"size": {"height": 16, "width": 16}}, "'shortest_edge': at least 16"),
        ({"size": {"shortest_edge": 8}}, "'shortest_edge': at least 16"),
        ({"crop_size": {"height": 16, "width": 20}}, "'width': 20"),
        ({"image_processor_type": "CLIPImageProcessor"}, "written by CLIPImageProcessor"),
    ],
)
def test_other_steps_are_refused_naming_the_field(checkpoint, fields, fault):
    edit(checkpoint / IMAGE, **fields)
    with pytest.raises(BackboneError, match=fault) as raised:
        load_backbone(str(checkpoint))
    assert str(checkpoint / IMAGE) in str(raised.value)


def test_two_processors_must_say_the_same(checkpoint, clips):
    expected = load_backbone(str(checkpoint)).pixel_values(clips)
    shutil.copy(checkpoint / IMAGE, checkpoint / VIDEO)
    assert torch.equal(load_backbone(str(checkpoint)).pixel_values(clips), expected)
    edit(checkpoint / VIDEO, image_mean=0.1)
    with pytest.raises(BackboneError, match="disagree"):
        load_backbone(str(checkpoint))


@pytest.mark.parametrize("text", ["", "[]", "7"])
def test_what_is_no_configuration_is_refused(checkpoint, text):
    (checkpoint / IMAGE).write_text(text)
    with pytest.raises(BackboneError, match=IMAGE):
        load_backbone(str(checkpoint))


def test_the_names_of_older_releases_are_known(checkpoint):
    values = json.loads((checkpoint / IMAGE).read_text())
    del values["image_processor_type"]
    values["feature_extractor_type"] = "VideoMAEFeatureExtractor"
    (checkpoint / IMAGE).write_text(json.dumps(values))
    assert VideoMAEImageProcessor.from_pretrained(checkpoint).size["shortest_edge"] == 16
    assert load_backbone(str(checkpoint)).image_size == 16
