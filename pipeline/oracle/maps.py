"""The oracle: what each token is worth to one class, by class-activation maps at token resolution.

Equations 1-2 of the paper ("Principles of Visual Tokens for Efficient Video Understanding"):

    alpha[k] = mean over n of  d y_c / d A[n, k]
    cam[n]   = sum over k of   alpha[k] * A[n, k]         (signed)
    score[n] = minmax(relu(cam)) per clip

with A the target layer's output. Axes in names: B clips, N tokens of the full grid, D channels.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.backbones.base import Backbone
from pipeline.clips.grid import TokenGrid
from pipeline.errors import ConfigError

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
METHODS = (*_NATIVE, *_LIBRARY)


@dataclass(frozen=True)
class OracleMaps:
    """What one forward and one partial backward pass give.

    Attributes:
        cam: float32 (B, N), signed; rank by it, because the score ties all negative tokens at 0.
        logits: float32 (B, num_classes), of the unchanged model.
    """

    cam: Tensor
    logits: Tensor


def token_maps(
    backbone: Backbone,
    tokens: Tensor,
    labels: Tensor | None,
    layer: str = "blocks.-1.output",
    method: str = "gradcam",
) -> OracleMaps:
    """Value every token of a batch with one forward pass.

    The backbone is frozen, so nothing is recorded until the target layer, whose output a hook
    replaces by a leaf that asks for a gradient; the backward runs from the logits to there only.

    Args:
        backbone: frozen model.
        tokens: (B, N, D) from `backbone.embed`, the full grid.
        labels: int64 (B,), the class to explain; None explains each clip's predicted class.
        layer: `embeddings` or `blocks.N.(mlp|output|norm1)`.
        method: one of `METHODS`.

    Raises:
        ConfigError: no such layer or method.
    """
    if method not in METHODS:
        raise ConfigError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    with torch.enable_grad():
        activations, logits = _forward_from_leaf(backbone, tokens, layer)
        targets = logits.detach().argmax(-1) if labels is None else labels.to(logits.device)
        explained = logits.gather(1, targets[:, None]).sum()
        (gradients,) = torch.autograd.grad(explained, activations)
    cam = cam_from(method, activations.detach().float(), gradients.float(), backbone.grid)
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


def scores_from_cam(cam: Tensor) -> Tensor:
    """The paper's score: min-max of relu(cam) per clip.

    Args:
        cam: float32 (B, N), signed.

    Returns:
        float32 (B, N) in [0, 1]. A degenerate map (no token above the others after the ReLU: all
        negative, or constant) has no order to show and is all zeros, never NaN.
    """
    positive = cam.clamp_min(0)
    low = positive.amin(dim=1, keepdim=True)
    spread = positive.amax(dim=1, keepdim=True) - low
    # A spread below the smallest normal number is rounding, and dividing by it would overflow.
    standing_out = spread >= torch.finfo(cam.dtype).tiny
    return torch.where(standing_out, (positive - low) / torch.where(standing_out, spread, 1), 0.0)


def _forward_from_leaf(backbone: Backbone, tokens: Tensor, layer: str) -> tuple[Tensor, Tensor]:
    """Run the blocks and return (output of `layer` as an autograd leaf, logits)."""
    if backbone.resolve_layer(layer) == "embeddings":
        leaf = tokens.detach().requires_grad_()
        return leaf, backbone.forward_tokens(leaf)
    with _leaf_at(backbone.target_module(layer)) as leaves:
        logits = backbone.forward_tokens(tokens.detach())
    return leaves[0], logits


@contextmanager
def _leaf_at(module: nn.Module) -> Iterator[list[Tensor]]:
    """While open, `module`'s output is cut off from what came before and asks for a gradient."""
    leaves: list[Tensor] = []

    def cut(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        leaves.append(output.detach().requires_grad_())
        return leaves[-1]

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
