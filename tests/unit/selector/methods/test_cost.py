"""GMACs against the paper's numbers, its closed form and hand counts."""

import pytest
import torch
from torch import nn
from transformers import VideoMAEConfig, VideoMAEForVideoClassification

from pipeline.backbones import load_backbone
from pipeline.backbones.base import Preprocessing
from pipeline.backbones.videomae import VideoMAEBackbone
from pipeline.clips.grid import TokenGrid
from selector.methods.cost import CostModel, ViewCost, count_gmacs, without_data
from selector.methods.keep import num_kept
from selector.training.config import SelectorConfig
from selector.training.model import TokenSelector


class WeightlessVideoMAE(VideoMAEBackbone):
    """VideoMAE-B as published, on the meta device: shapes without 350 MB of weights."""

    def __init__(self) -> None:
        nn.Module.__init__(self)
        with torch.device("meta"):
            self.model = VideoMAEForVideoClassification(VideoMAEConfig(num_labels=174)).eval()
        self.num_frames, self.hidden_size, self.head_size = 16, 768, 64
        self.grid = TokenGrid(8, 14, 14)
        self.preprocessing = Preprocessing(
            short_side=224, crop_size=224, mean=(0.0,) * 3, std=(1.0,) * 3
        )


@pytest.fixture(scope="module")
def base_costs():
    return CostModel(WeightlessVideoMAE())


@pytest.mark.parametrize(
    ("keep_ratio", "gmacs"), [(1, 180.3), (0.9, 158.4), (0.7, 117.2), (0.5, 79.8), (0.3, 45.8)]
)
def test_videomae_b_costs_what_the_paper_says(base_costs, keep_ratio, gmacs):
    kept = num_kept(1568, keep_ratio)
    cost = base_costs.at(kept)
    assert round(cost.total, 1) == gmacs
    closed_form = 12 * (12 * kept * 768**2 + 2 * kept**2 * 768) + 1568 * 1536 * 768
    classifier = 768 * 174
    assert cost.total * 1e9 == pytest.approx(closed_form + classifier, rel=1e-12)


def tiny_selector(backbone):
    config = SelectorConfig(
        num_layers=3,
        width=16,
        hidden_size=backbone.hidden_size,
        grid=backbone.grid,
        backbone="tiny",
        backbone_digest=backbone.digest,
        store_fingerprint="f" * 64,
        oracle="gradcam",
    )
    return TokenSelector(config)


def test_the_selector_is_counted_on_all_tokens_and_only_where_it_runs(tiny_backbone):
    backbone = load_backbone(str(tiny_backbone))
    costs = CostModel(backbone, tiny_selector(backbone))
    per_token = 24 * 16 + 16 * 16 + 16
    assert costs.at(4).selector == pytest.approx(8 * per_token / 1e9)
    assert costs.at(8).selector == 0
    assert costs.at(8, ranked=True).selector == costs.at(4).selector
    assert CostModel(backbone).at(4).selector == 0


def test_the_columns_add_up():
    cost = ViewCost(embed=1.0, selector=0.25, blocks=8.0, confidence=0.5)
    assert cost.backbone == 9.0
    assert cost.total == 9.75


def test_counting_leaves_the_weights_where_they_were(tiny_backbone):
    backbone = load_backbone(str(tiny_backbone))
    twin = without_data(backbone)
    assert all(p.device.type == "meta" for p in twin.parameters())
    assert all(p.device.type == "cpu" for p in backbone.parameters())
    pixels = torch.zeros(1, 4, 3, 16, 16)
    assert torch.isfinite(backbone(pixels)).all()


def test_a_linear_layer_costs_its_product():
    layer = without_data(nn.Linear(10, 20))
    assert count_gmacs(layer, torch.empty(3, 10, device="meta")) * 1e9 == pytest.approx(600)
