"""The checkpoint in the package: small, complete, and right about videos it never saw."""

import pytest
import torch

from datasets_spec.synthetic import make
from datasets_spec.synthetic.actions import ACTIONS
from pipeline.backbones import load_backbone
from pipeline.backbones.checkpoint import SHIPPED
from pipeline.backbones.tokens import Reduction, reduce
from pipeline.standin.clips import load_clips
from pipeline.standin.config import BackboneConfig


@pytest.fixture(scope="module")
def backbone():
    return load_backbone("synthetic")


def test_it_is_small_and_names_the_benchmarks_classes(backbone):
    folder = SHIPPED / "synthetic"
    assert sum(path.stat().st_size for path in folder.iterdir()) < 8e6
    assert backbone.label_names == [action.class_name for action in ACTIONS]
    assert backbone.grid == BackboneConfig().grid


def test_it_knows_the_actions_of_new_videos_from_all_and_from_half_of_the_tokens(
    backbone, tmp_path
):
    make(tmp_path / "data", 160, seed=99, workers=0)
    config = BackboneConfig()
    clips = load_clips(
        tmp_path / "data", "train", tmp_path / "cache", config, 0, lambda done, total: None
    )
    labels = torch.from_numpy(clips.labels)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        tokens = backbone.embed(backbone.pixel_values(clips.frames.copy()))
        full = (backbone.run(tokens).argmax(1) == labels).float().mean()
        some = torch.randperm(tokens.num, generator=generator)[:144].expand(len(tokens), -1)
        half = reduce(tokens, Reduction(some))
        random = (backbone.run(half).argmax(1) == labels).float().mean()
    assert len(labels) == 112
    assert full > 0.6  # chance is 1 in 18
    assert full > random > 0.4
