"""Token maps equal pytorch-grad-cam and plain autograd, in one forward, and leave no trace."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pytorch_grad_cam import GradCAM, HiResCAM, LayerCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn

from pipeline.backbones import Backbone, load_backbone
from pipeline.errors import ConfigError
from pipeline.oracle.base import scores_from_cam
from pipeline.oracle.cam import CAM_METHODS
from tests.checkpoints import BASE, save_videomae
from tests.plain import layers, plain_logits, token_maps

LAYERS = ("blocks.-1.mlp", "blocks.-1.output", "blocks.1.norm1", "blocks.1.mlp", "embeddings")


@pytest.fixture(scope="module")
def backbone(tiny_backbone: Path) -> Backbone:
    return load_backbone(str(tiny_backbone))


def make_pixels(backbone: Backbone, batch: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    size = backbone.image_size
    return torch.randn(batch, backbone.num_frames, 3, size, size, generator=generator)


def by_plain_autograd(backbone: Backbone, pixels, labels, layer: str) -> torch.Tensor:
    """Equation 1-2 with the whole graph recorded: no hook of ours, no frozen parameters."""
    kept: list[torch.Tensor] = []
    tokens = backbone.embed(pixels).values.requires_grad_()
    if layer == "embeddings":
        kept.append(tokens)
        logits = plain_logits(backbone, tokens)
    else:
        module = backbone.layer_target(layer).module
        handle = module.register_forward_hook(lambda m, i, out: kept.append(out))
        logits = plain_logits(backbone, tokens)
        handle.remove()
    maps = []
    for clip, label in enumerate(labels):
        (gradient,) = torch.autograd.grad(logits[clip, label], kept[0], retain_graph=True)
        alpha = gradient[clip].mean(0)
        maps.append((kept[0][clip] * alpha).sum(-1))
    return torch.stack(maps).detach()


def by_pytorch_grad_cam(cls, backbone: Backbone, pixels, labels, layer: str) -> torch.Tensor:
    """The library's own hooks and combination; its map is taken before resizing and min-max."""

    def to_volume(tokens):
        return tokens.transpose(1, 2).reshape(len(tokens), -1, *backbone.grid)

    class RawMap(cls):
        def compute_cam_per_layer(self, input_tensor, targets, eigen_smooth):
            grads = self.activations_and_grads
            return [
                self.get_cam_image(
                    input_tensor,
                    None,
                    targets,
                    grads.activations[0].numpy(),
                    grads.gradients[0].numpy(),
                    eigen_smooth,
                )
            ]

        def aggregate_multi_layers(self, maps):
            return maps[0]

    backbone.requires_grad_(True)  # the library records nothing on a frozen model
    try:
        with RawMap(backbone, [backbone.layer_target(layer).module], to_volume) as cam:
            raw = cam(pixels, [ClassifierOutputTarget(int(label)) for label in labels])
    finally:
        backbone.requires_grad_(False)
        backbone.zero_grad(set_to_none=True)
    return torch.from_numpy(raw).flatten(1)


def relative_error(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours - theirs).norm() / theirs.norm())


@pytest.mark.parametrize("layer", LAYERS)
def test_equals_plain_autograd(backbone: Backbone, layer: str):
    pixels, labels = make_pixels(backbone), torch.tensor([0, 3, 4])
    ours = token_maps(backbone, backbone.embed(pixels), labels, layer)
    assert relative_error(ours.cam, by_plain_autograd(backbone, pixels, labels, layer)) < 1e-5


@pytest.mark.parametrize("layer", [layer for layer in LAYERS if layer != "embeddings"])
@pytest.mark.parametrize(
    ("method", "cls"), [("gradcam", GradCAM), ("hirescam", HiResCAM), ("layercam", LayerCAM)]
)
def test_equals_pytorch_grad_cam(backbone: Backbone, layer: str, method: str, cls):
    pixels, labels = make_pixels(backbone), torch.tensor([1, 2, 0])
    ours = token_maps(backbone, backbone.embed(pixels), labels, layer, method)
    theirs = by_pytorch_grad_cam(cls, backbone, pixels, labels, layer)
    assert relative_error(ours.cam, theirs) < 1e-5


def check_base_architecture(folder: Path, **sizes: int) -> None:
    backbone = load_backbone(str(save_videomae(folder, num_labels=174, **sizes)))
    pixels, labels = make_pixels(backbone, batch=1), torch.tensor([17])
    for layer in ("blocks.-1.mlp", "blocks.-1.output", "blocks.7.output"):
        ours = token_maps(backbone, backbone.embed(pixels), labels, layer).cam
        assert relative_error(ours, by_plain_autograd(backbone, pixels, labels, layer)) < 1e-4
        theirs = by_pytorch_grad_cam(GradCAM, backbone, pixels, labels, layer)
        assert relative_error(ours, theirs) < 1e-4


VIDEOMAE_B = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "patch_size": 16,
}


def test_equals_both_at_the_depth_and_width_of_videomae_b(tmp_path: Path):
    check_base_architecture(tmp_path, **VIDEOMAE_B, image_size=64, num_frames=4)


@pytest.mark.slow
def test_equals_both_on_videomae_b_with_all_1568_tokens(tmp_path: Path):
    check_base_architecture(tmp_path, **VIDEOMAE_B, **BASE)


@pytest.mark.parametrize("method", CAM_METHODS)
def test_every_method_gives_finite_maps_and_true_logits(backbone: Backbone, method: str):
    pixels = make_pixels(backbone)
    maps = token_maps(backbone, backbone.embed(pixels), None, "blocks.-1.output", method)
    assert maps.cam.shape == (3, backbone.grid.num_tokens)
    assert torch.isfinite(maps.cam).all()
    with torch.no_grad():
        torch.testing.assert_close(maps.logits, backbone(pixels), rtol=0, atol=1e-6)


def test_tokens_stay_in_place_on_the_grid(backbone: Backbone):
    """A method computed by the library on a (t, h, w) volume comes back in token order."""
    pixels = make_pixels(backbone)
    tokens = backbone.embed(pixels)
    library = token_maps(backbone, tokens, None, "blocks.-1.output", "gradcam-elementwise").cam
    activations, gradients = [], []
    module = layers(backbone)[-1]

    def keep(_module, _inputs, output):
        output = output.detach().requires_grad_()
        activations.append(output)
        return output

    handle = module.register_forward_hook(keep)
    logits = plain_logits(backbone, tokens.values)
    handle.remove()
    gradients = torch.autograd.grad(logits.max(-1).values.sum(), activations[0])[0]
    expected = (activations[0] * gradients).clamp_min(0).sum(-1).detach()
    torch.testing.assert_close(library, expected)


def test_in_the_last_block_every_token_has_the_same_gradient(backbone: Backbone):
    """The head averages tokens, so Grad-CAM and HiResCAM must agree on the last output."""
    tokens = backbone.embed(make_pixels(backbone))
    grad = token_maps(backbone, tokens, None, "blocks.-1.output", "gradcam").cam
    hires = token_maps(backbone, tokens, None, "blocks.-1.output", "hirescam").cam
    torch.testing.assert_close(grad, hires)


def test_one_forward_pass_and_no_trace(backbone: Backbone):
    calls = []
    block = layers(backbone)[0]
    handle = block.register_forward_hook(lambda *_: calls.append(1))
    tokens = backbone.embed(make_pixels(backbone))
    token_maps(backbone, tokens, None, "blocks.-1.mlp")
    handle.remove()
    assert len(calls) == 1
    assert all(not module._forward_hooks for module in backbone.modules())
    assert all(p.grad is None and not p.requires_grad for p in backbone.parameters())
    assert not tokens.values.requires_grad


def test_hooks_are_removed_when_the_model_fails(backbone: Backbone, monkeypatch):
    monkeypatch.setattr(backbone, "head", lambda hidden: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        token_maps(backbone, backbone.embed(make_pixels(backbone)), None, "blocks.-1.mlp")
    assert all(not module._forward_hooks for module in backbone.modules())


def test_nothing_is_recorded_before_the_target_layer(backbone: Backbone):
    """The frozen part keeps no graph: its outputs do not ask for gradients."""
    needs_grad = []
    handles = [
        block.register_forward_hook(lambda m, i, out: needs_grad.append(out.requires_grad))
        for block in layers(backbone)
    ]
    token_maps(backbone, backbone.embed(make_pixels(backbone)), None, "blocks.1.output")
    for handle in handles:
        handle.remove()
    # A hook sees the output before ours replaces it, hence False at block 1 itself.
    assert needs_grad == [False, False, True]


def test_labels_and_predictions_are_different_targets(backbone: Backbone):
    pixels = make_pixels(backbone)
    tokens = backbone.embed(pixels)
    predicted = token_maps(backbone, tokens, None)
    same = token_maps(backbone, tokens, predicted.logits.argmax(-1))
    other = token_maps(backbone, tokens, (predicted.logits.argmax(-1) + 1) % 5)
    assert torch.equal(predicted.cam, same.cam)
    assert not torch.allclose(predicted.cam, other.cam)


def test_bad_names_are_refused(backbone: Backbone):
    tokens = backbone.embed(make_pixels(backbone))
    with pytest.raises(ConfigError, match="method must be one of gradcam"):
        token_maps(backbone, tokens, None, method="scorecam")
    with pytest.raises(ConfigError, match="layer 'blocks.9.mlp' does not exist"):
        token_maps(backbone, tokens, None, layer="blocks.9.mlp")


def test_scores_follow_the_paper_and_degenerate_maps_are_zero():
    cam = torch.tensor(
        [
            [-1.0, 0.0, 1.0, 3.0],
            [-4.0, -3.0, -2.0, -1.0],
            [2.0, 2.0, 2.0, 2.0],
            [1.0, 2.0, 3.0, 5.0],
        ]
    )
    expected = torch.tensor([[0, 0, 1 / 3, 1], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0.25, 0.5, 1]])
    torch.testing.assert_close(scores_from_cam(cam), expected)


def test_backbone_is_a_module_users_can_inspect(backbone: Backbone):
    assert isinstance(backbone.layer_target("blocks.0.norm1").module, nn.LayerNorm)


def test_a_spread_of_rounding_errors_is_degenerate_not_infinite():
    cam = torch.tensor([[1e-42, 2e-42, 0.0, 0.0]])  # subnormal
    assert torch.equal(scores_from_cam(cam), torch.zeros_like(cam))
