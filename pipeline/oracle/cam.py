"""The paper's oracle: class-activation maps at token resolution.

Equations 1-2 of the paper ("Principles of Visual Tokens for Efficient Video Understanding"):

    alpha[k] = mean over n of  d y_c / d A[n, k]
    cam[n]   = sum over k of   alpha[k] * A[n, k]         (signed)
    score[n] = minmax(relu(cam)) per clip

with A the target layer's output. Axes in names: B clips, N tokens of the full grid, D channels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.backbones.base import Backbone
from pipeline.backbones.tokens import Tokens
from pipeline.clips.grid import TokenGrid
from pipeline.config import require_one_of
from pipeline.oracle.base import OracleMaps, explained_classes

# On the device, exactly as pytorch-grad-cam computes them.
_NATIVE = ("gradcam", "hirescam")
# pytorch-grad-cam's own code, run on the CPU. Left out: those that mask pixels or channels and run
# the model again (ScoreCAM, AblationCAM, ShapleyCAM), and those tied to convolutions (FullGrad).
_LIBRARY = {
    "gradcam++": "GradCAMPlusPlus",
    "xgradcam": "XGradCAM",
    "layercam": "LayerCAM",
    "gradcam-elementwise": "GradCAMElementWise",
    "eigencam": "EigenCAM",
    "eigengradcam": "EigenGradCAM",
    "segeigencam": "SegEigenCAM",
    "kpcacam": "KPCA_CAM",
    "fem": "FEM",
}
CAM_METHODS = (*_NATIVE, *_LIBRARY)


class ClassActivationMap:
    """Values every token with one forward pass and one partial backward pass.

    The backbone is frozen, so nothing is recorded until the target layer, whose output a hook
    replaces by a leaf that asks for a gradient; the backward runs from the logits to there only.

    Args:
        layer: `embeddings` or `blocks.N.(mlp|output|norm1)`.
        method: one of `CAM_METHODS`.

    Raises:
        ConfigError: no such method.
    """

    def __init__(self, layer: str = "blocks.-1.output", method: str = "gradcam") -> None:
        require_one_of("method", method, CAM_METHODS)
        self._layer, self._method = layer, method

    def values(self, backbone: Backbone, tokens: Tokens, labels: Tensor | None) -> OracleMaps:
        """See `Oracle.values`."""
        with torch.enable_grad():
            activations, logits = _forward_from_leaf(backbone, tokens, self._layer)
            explained = logits.gather(1, explained_classes(logits, labels)[:, None]).sum()
            (gradients,) = torch.autograd.grad(explained, activations)
        on_grid = _on_grid(backbone, self._layer)
        cam = cam_from(
            self._method,
            on_grid(activations.detach()).float(),
            on_grid(gradients).float(),
            backbone.grid,
        )
        return OracleMaps(cam=cam, logits=logits.detach())


def cam_from(method: str, activations: Tensor, gradients: Tensor, grid: TokenGrid) -> Tensor:
    """Combine activations and gradients, both float32 (B, N, D), into a signed map (B, N)."""
    if method == "gradcam":
        alpha = gradients.mean(dim=1)
        return torch.einsum("bnd,bd->bn", activations, alpha)
    if method == "hirescam":
        return (gradients * activations).sum(dim=-1)
    image = _library_cam(method).get_cam_image(
        None, None, None, _as_volume(activations, grid), _as_volume(gradients, grid), False
    )
    cam = torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32))
    return cam.reshape(len(activations), grid.num_tokens).to(activations.device)


def _forward_from_leaf(backbone: Backbone, tokens: Tokens, layer: str) -> tuple[Tensor, Tensor]:
    """Run the blocks and return (output of `layer` as an autograd leaf, logits)."""
    tokens = replace(tokens, values=tokens.values.detach())
    if backbone.resolve_layer(layer) == "embeddings":
        leaf = tokens.values.requires_grad_()
        return leaf, backbone.run(tokens)
    with _leaf_at(backbone.layer_target(layer).module) as leaves:
        logits = backbone.run(tokens)
    return leaves[0], logits


def _on_grid(backbone: Backbone, layer: str) -> Callable[[Tensor], Tensor]:
    if backbone.resolve_layer(layer) == "embeddings":
        return backbone.on_grid
    return backbone.layer_target(layer).on_grid


@contextmanager
def _leaf_at(module: nn.Module) -> Iterator[list[Tensor]]:
    """While open, `module`'s output is cut off from what came before and asks for a gradient."""
    leaves: list[Tensor] = []

    def cut(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        whole = isinstance(output, Tensor)
        leaves.append((output if whole else output[0]).detach().requires_grad_())
        return leaves[-1] if whole else (leaves[-1], *output[1:])

    handle = module.register_forward_hook(cut)
    try:
        yield leaves
    finally:
        handle.remove()


def _as_volume(values: Tensor, grid: TokenGrid) -> np.ndarray:
    """(B, N, D) -> numpy (B, D, t, h, w), the layout pytorch-grad-cam calls a 3-D image."""
    volume = values.transpose(1, 2).reshape(len(values), -1, *grid)
    return volume.cpu().numpy()


def _library_cam(method: str) -> Any:
    import pytorch_grad_cam

    cam = getattr(pytorch_grad_cam, _LIBRARY[method])
    # Its constructor wants a model to hook; the combination we use reads none, so any will do.
    return cam(nn.Linear(1, 1), target_layers=[])
