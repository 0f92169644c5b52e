"""An oracle's layer, where one is asked for and where none is."""

from __future__ import annotations

import pytest
import torch

from pipeline.backbones import load_backbone
from pipeline.config import OracleName
from pipeline.errors import ConfigError
from pipeline.oracle.cam import ClassActivationMap
from pipeline.oracle.names import default_layer, oracle_layer, resolve_oracle
from tests.checkpoints import save_videomae


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    """Three blocks, mean pooling."""
    return load_backbone(str(save_videomae(tmp_path_factory.mktemp("mean"))))


@pytest.fixture(scope="module")
def first_token(tmp_path_factory):
    """Three blocks, a head that reads the first token."""
    folder = tmp_path_factory.mktemp("first")
    return load_backbone(str(save_videomae(folder, use_mean_pooling=False)))


def test_where_none_is_asked_for_the_head_decides(backbone, first_token):
    assert default_layer(backbone, "gradcam") == "blocks.-1.output"
    assert default_layer(first_token, "gradcam") == "blocks.-1.norm1"
    assert oracle_layer(backbone, "gradcam", None) == "blocks.2.output"
    assert oracle_layer(first_token, "hirescam", None) == "blocks.2.norm1"


def test_a_name_keeps_what_it_asks_for(backbone):
    asked = OracleName("hirescam", "blocks.-2.mlp", "predicted")
    assert resolve_oracle(backbone, asked) == OracleName("hirescam", "blocks.1.mlp", "predicted")
    open_field = OracleName("gradcam", "", "label")
    assert resolve_oracle(backbone, open_field).layer == "blocks.2.output"


def test_an_unknown_method_is_named_with_its_option(backbone):
    for make in (lambda: oracle_layer(backbone, "gradcma", None), lambda: make_map("gradcma")):
        with pytest.raises(ConfigError, match=r"^method must be .*gradcma"):
            make()


def make_map(method):
    return ClassActivationMap("blocks.0.mlp", method)


@torch.no_grad()
def test_the_papers_map_is_the_default(backbone):
    tokens = backbone.embed(torch.randn(1, backbone.num_frames, 3, 16, 16))
    labels = torch.tensor([1])
    cam = ClassActivationMap().values(backbone, tokens, labels).cam
    asked = ClassActivationMap("blocks.-1.output", "gradcam").values(backbone, tokens, labels).cam
    assert torch.equal(cam, asked)
