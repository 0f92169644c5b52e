"""Every backbone adapter keeps the promises of `tests/conformance/backbones.py`."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import (
    TimesformerForVideoClassification,
    VideoMAEForVideoClassification,
    VivitForVideoClassification,
    VJEPA2ForVideoClassification,
)

from tests.checkpoints import save_timesformer, save_videomae, save_vivit, save_vjepa2
from tests.conformance.backbones import BackboneTests


def videomae_logits(folder: Path):
    model = VideoMAEForVideoClassification.from_pretrained(folder).eval()
    return lambda pixels: model(pixels).logits


class TestVideoMAE(BackboneTests):
    @pytest.fixture(scope="class")
    @classmethod
    def folder(cls, tmp_path_factory):
        return save_videomae(tmp_path_factory.mktemp("videomae"), image_size=24, num_frames=6)

    @pytest.fixture(scope="class")
    @classmethod
    def plain(cls, folder):
        return videomae_logits(folder)


class TestVideoMAEThatReadsItsFirstToken(TestVideoMAE):
    """What fine-tuning the pre-trained release gives: no mean pooling, but a final norm."""

    @pytest.fixture(scope="class")
    @classmethod
    def folder(cls, tmp_path_factory):
        return save_videomae(
            tmp_path_factory.mktemp("first"), image_size=24, num_frames=6, use_mean_pooling=False
        )

    def test_the_first_token_is_of_the_grid_and_stays(self, backbone):
        assert (backbone.prefix, backbone.off_grid) == (1, 0)
        with torch.no_grad():
            tokens = backbone.embed(torch.zeros(1, 6, 3, 24, 24))
        assert tokens.place[0, 0] == 0


class TestTimeSformer(BackboneTests):
    attention_type = "joint_space_time"

    @pytest.fixture(scope="class")
    @classmethod
    def folder(cls, tmp_path_factory):
        return save_timesformer(
            tmp_path_factory.mktemp("timesformer"),
            image_size=24,
            num_frames=5,
            attention_type=cls.attention_type,
        )

    @pytest.fixture(scope="class")
    @classmethod
    def plain(cls, folder):
        model = TimesformerForVideoClassification.from_pretrained(folder).eval()
        return lambda pixels: model(pixels).logits

    def test_its_tokens_are_of_single_frames_and_cls_lies_on_no_grid(self, backbone):
        assert (backbone.prefix, backbone.off_grid, backbone.tubelet_size) == (1, 1, 1)
        assert backbone.grid == (5, 3, 3)


class TestTimeSformerDivided(TestTimeSformer):
    attention_type = "divided_space_time"


class TestVivit(BackboneTests):
    @pytest.fixture(scope="class")
    @classmethod
    def folder(cls, tmp_path_factory):
        return save_vivit(tmp_path_factory.mktemp("vivit"), image_size=24, num_frames=6)

    @pytest.fixture(scope="class")
    @classmethod
    def plain(cls, folder):
        model = VivitForVideoClassification.from_pretrained(folder).eval()
        return lambda pixels: model(pixels).logits

    def test_cls_lies_on_no_grid(self, backbone):
        assert (backbone.prefix, backbone.off_grid, backbone.tubelet_size) == (1, 1, 2)
        assert backbone.grid == (3, 3, 3)


class TestVJEPA2(BackboneTests):
    @pytest.fixture(scope="class")
    @classmethod
    def folder(cls, tmp_path_factory):
        # Heads of 16 channels: 4 for each axis, and 4 that are not rotated.
        return save_vjepa2(
            tmp_path_factory.mktemp("vjepa2"), image_size=24, num_frames=6, hidden_size=32
        )

    @pytest.fixture(scope="class")
    @classmethod
    def plain(cls, folder):
        model = VJEPA2ForVideoClassification.from_pretrained(folder).eval()
        return lambda pixels: model(pixels).logits

    def test_every_token_lies_on_the_grid_and_may_go(self, backbone):
        assert (backbone.prefix, backbone.off_grid) == (0, 0)
