"""Several oracles in one pass say what each says in a pass of its own, to the bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pipeline.backbones import Backbone, load_backbone
from pipeline.config import OracleName
from pipeline.errors import ConfigError
from pipeline.oracle.cam import CAM_METHODS, CamTarget, class_activation_maps
from pipeline.oracle.names import make_oracle
from pipeline.oracle.together import values_together
from tests.checkpoints import save_videomae
from tests.plain import layers, token_maps

LAYERS = ("embeddings", "blocks.0.output", "blocks.1.mlp", "blocks.2.norm1", "blocks.-1.output")
METHODS = ("gradcam", "hirescam", "layercam")


@pytest.fixture(scope="module")
def backbone(tiny_backbone: Path) -> Backbone:
    return load_backbone(str(tiny_backbone))


def make_tokens(backbone: Backbone, batch: int = 3):
    generator = torch.Generator().manual_seed(1)
    size = backbone.image_size
    pixels = torch.randn(batch, backbone.num_frames, 3, size, size, generator=generator)
    with torch.no_grad():
        return backbone.embed(pixels)


def make_classes(backbone: Backbone, tokens) -> dict[str, torch.Tensor | None]:
    """The classes whose maps are ever asked for: three by number, and the predicted ones."""
    ranked = backbone.run(tokens).argsort(dim=1, descending=True)
    label, wrong = ranked[:, 2], ranked[:, 4]
    return {"label": label, "predicted": None, "second": ranked[:, 1], "wrong": wrong}


def check_equal_to_single_passes(backbone: Backbone, tokens, targets: list[CamTarget]) -> None:
    with torch.no_grad():
        together = class_activation_maps(backbone, tokens, targets)
    for target, found in zip(targets, together, strict=True):
        with torch.no_grad():
            alone = token_maps(backbone, tokens, target.labels, target.layer, target.method)
        assert torch.equal(found.cam, alone.cam), target[:2]
        assert torch.equal(found.logits, alone.logits)
        assert found.cam.abs().max() > 0
        assert not found.cam.requires_grad
        assert not found.logits.requires_grad


def test_all_layers_methods_and_classes_at_once(backbone: Backbone):
    tokens = make_tokens(backbone)
    check_equal_to_single_passes(
        backbone,
        tokens,
        [
            CamTarget(layer, method, classes)
            for classes in make_classes(backbone, tokens).values()
            for layer in LAYERS
            for method in METHODS
        ],
    )


def test_every_method_of_pytorch_grad_cam_beside_a_deeper_layer(backbone: Backbone):
    tokens = make_tokens(backbone)
    targets = [CamTarget("blocks.1.output", method, None) for method in CAM_METHODS]
    check_equal_to_single_passes(
        backbone, tokens, [CamTarget("blocks.-1.mlp", "gradcam", None), *targets]
    )


def test_at_the_depth_and_width_of_videomae_b(tmp_path: Path):
    size = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12}
    shape = {"intermediate_size": 3072, "patch_size": 16, "image_size": 64, "num_frames": 4}
    backbone = load_backbone(str(save_videomae(tmp_path, num_labels=174, **size, **shape)))
    tokens, label = make_tokens(backbone, 2), torch.tensor([17, 5])
    check_equal_to_single_passes(
        backbone,
        tokens,
        [
            CamTarget("blocks.-1.output", "gradcam", label),
            CamTarget("blocks.6.mlp", "hirescam", None),
            CamTarget("embeddings", "hirescam", label),
        ],
    )


def test_occlusion_and_maps_in_any_order(tmp_path: Path):
    # More tokens than one box of occlusion holds.
    backbone = load_backbone(str(save_videomae(tmp_path, image_size=32)))
    names = [
        OracleName("occlusion", "embeddings", "predicted"),
        OracleName("gradcam", "blocks.2.output"),
        OracleName("occlusion", "embeddings"),
        OracleName("hirescam", "embeddings", "predicted"),
    ]
    tokens = make_tokens(backbone)
    labels = make_classes(backbone, tokens)["wrong"]
    assert labels is not None
    with torch.no_grad():
        together = values_together(names, backbone, tokens, labels)
        for name, found in zip(names, together, strict=True):
            alone = make_oracle(name.method, name.layer).values(
                backbone, tokens, labels if name.target == "label" else None
            )
            assert torch.equal(found.cam, alone.cam), name
            assert torch.equal(found.logits, alone.logits), name


def test_one_forward_and_nothing_recorded_before_the_first_layer(backbone: Backbone):
    recorded = []
    handles = [
        block.register_forward_hook(lambda m, i, out: recorded.append(out.requires_grad))
        for block in layers(backbone)
    ]
    label = torch.tensor([0, 1, 2])
    layers_asked = ("blocks.2.output", "blocks.1.output", "blocks.-2.output")
    class_activation_maps(
        backbone,
        make_tokens(backbone),
        [CamTarget(at, "gradcam", of) for at in layers_asked for of in (label, None)],
    )
    for handle in handles:
        handle.remove()
    # A hook sees the output before ours replaces it, hence False at block 1 itself.
    assert recorded == [False, False, True]
    assert all(not module._forward_hooks for module in backbone.modules())


def test_one_backward_for_each_set_of_classes(backbone: Backbone, monkeypatch):
    calls = []
    grad = torch.autograd.grad

    def counted(outputs, inputs, **options):
        calls.append((len(inputs), options["retain_graph"]))
        return grad(outputs, inputs, **options)

    monkeypatch.setattr(torch.autograd, "grad", counted)
    label = torch.tensor([0, 1, 2])
    asked = [("embeddings", label), ("blocks.1.mlp", None), ("blocks.1.output", label)]
    class_activation_maps(
        backbone,
        make_tokens(backbone),
        [CamTarget(at, method, of) for at, of in asked for method in METHODS],
    )
    assert sorted(calls) == [(1, True), (2, False)] or sorted(calls) == [(1, False), (2, True)]


def test_two_names_of_one_layer_and_no_target_at_all(backbone: Backbone):
    tokens = make_tokens(backbone)
    check_equal_to_single_passes(
        backbone,
        tokens,
        [CamTarget(layer, "hirescam", None) for layer in ("blocks.-1.mlp", "blocks.2.mlp")],
    )
    assert class_activation_maps(backbone, tokens, []) == []


def test_hooks_are_removed_when_the_second_layer_does_not_exist(backbone: Backbone):
    targets = [CamTarget(at, "gradcam", None) for at in ("blocks.0.mlp", "blocks.7.mlp")]
    with pytest.raises(ConfigError, match="layer 'blocks.7.mlp' does not exist"):
        class_activation_maps(backbone, make_tokens(backbone), targets)
    assert all(not module._forward_hooks for module in backbone.modules())
