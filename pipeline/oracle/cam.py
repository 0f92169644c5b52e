"""The paper's oracle: class-activation maps at token resolution.

Equations 1-2 of the paper ("Principles of Visual Tokens for Efficient Video Understanding"):

    alpha[k] = mean over n of  d y_c / d A[n, k]
    cam[n]   = sum over k of   alpha[k] * A[n, k]         (signed)
    score[n] = minmax(relu(cam)) per clip

with A the target layer's output. Axes in names: B clips, N tokens of the full grid, D channels.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

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
    `class_activation_maps` gives several in one pass.

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
        target = CamTarget(self._layer, self._method, labels)
        return class_activation_maps(backbone, tokens, [target])[0]


class CamTarget(NamedTuple):
    """One map."""

    layer: str
    """`embeddings` or `blocks.N.(mlp|output|norm1)`."""
    method: str
    """One of `CAM_METHODS`."""
    labels: Tensor | None
    """int64 (B,), the class to explain; None explains each clip's predicted class."""


def class_activation_maps(
    backbone: Backbone, tokens: Tokens, targets: Sequence[CamTarget]
) -> list[OracleMaps]:
    """Several maps of the same clips from one forward pass.

    Nothing is recorded before the first of the layers, and the backward runs once for each set of
    classes (the same `labels` object), from the logits to the first layer that it is asked of.

    Args:
        backbone: frozen model.
        tokens: from `backbone.embed`, all of them.
        targets: which maps; none gives none and runs nothing.

    Returns:
        One entry a target, in their order; each what a pass of its own gives.

    Raises:
        ConfigError: no such layer or method.
    """
    for target in targets:
        require_one_of("method", target.method, CAM_METHODS)
    if not targets:
        return []
    targets = [target._replace(layer=backbone.resolve_layer(target.layer)) for target in targets]
    by_classes: dict[int, list[CamTarget]] = {}
    for target in targets:
        by_classes.setdefault(id(target.labels), []).append(target)
    with torch.enable_grad():
        seen, logits = _forward_recording(backbone, tokens, {target.layer for target in targets})
    groups = [*by_classes.values()]
    found = {}
    for group in groups:
        last = group is groups[-1]
        maps = _maps_of_classes(backbone, seen, logits, group, keep_graph=not last)
        found[id(group[0].labels)] = iter(maps)
    return [OracleMaps(next(found[id(target.labels)]), logits.detach()) for target in targets]


def _maps_of_classes(
    backbone: Backbone,
    seen: Mapping[str, Tensor],
    logits: Tensor,
    targets: Sequence[CamTarget],
    *,
    keep_graph: bool,
) -> list[Tensor]:
    """The maps (B, N) of targets of the same classes, from one backward pass."""
    layers = list(dict.fromkeys(target.layer for target in targets))
    with torch.enable_grad():
        classes = explained_classes(logits, targets[0].labels)
        explained = logits.gather(1, classes[:, None]).sum()
        outputs = [seen[layer] for layer in layers]
        found = torch.autograd.grad(explained, outputs, retain_graph=keep_graph)
    gradients = dict(zip(layers, found, strict=True))
    maps = []
    for layer, method, _ in targets:
        on_grid = _on_grid(backbone, layer)
        activation, gradient = (
            on_grid(x).float() for x in (seen[layer].detach(), gradients[layer])
        )
        maps.append(cam_from(method, activation, gradient, backbone.grid))
    return maps


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


def _forward_recording(
    backbone: Backbone, tokens: Tokens, layers: Collection[str]
) -> tuple[dict[str, Tensor], Tensor]:
    """Run the blocks and return the outputs of some layers, to differentiate by, and the logits."""
    tokens = replace(tokens, values=tokens.values.detach())
    seen: dict[str, Tensor] = {}
    with ExitStack() as hooks:
        for layer in layers:
            if layer == "embeddings":
                seen[layer] = tokens.values.requires_grad_()
            else:
                module = backbone.layer_target(layer).module
                hooks.enter_context(_recorded(module, functools.partial(seen.setdefault, layer)))
        logits = backbone.run(tokens)
    return seen, logits


def _on_grid(backbone: Backbone, layer: str) -> Callable[[Tensor], Tensor]:
    if backbone.resolve_layer(layer) == "embeddings":
        return backbone.on_grid
    return backbone.layer_target(layer).on_grid


@contextmanager
def _recorded(module: nn.Module, keep: Callable[[Tensor], Any]) -> Iterator[None]:
    """While open, `keep` gets `module`'s output, as a leaf where nothing was recorded before it."""

    def record(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        whole = isinstance(output, Tensor)
        values = output if whole else output[0]
        if not values.requires_grad:
            values = values.detach().requires_grad_()
        keep(values)
        return values if whole else (values, *output[1:])

    handle = module.register_forward_hook(record)
    try:
        yield
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
