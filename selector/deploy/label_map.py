"""What an oracle says of a clip in use, where somebody knows its class."""

from __future__ import annotations

import torch

from pipeline.backbones.base import Backbone
from pipeline.config import OracleConfig
from pipeline.oracle.base import scores_from_cam
from pipeline.oracle.names import make_oracle, oracle_layer
from selector.deploy.mask_picture import Panel
from selector.deploy.overlay import Frames, heat


def oracle_panel(backbone: Backbone, frames: Frames, class_id: int, label: str) -> Panel:
    """The map of the default oracle of `build-oracle`: one more pass, forward and backward.

    Args:
        backbone: the whole model.
        frames: uint8 (T, H, W, 3).
        class_id: the class to explain.
        label: its name.
    """
    method = OracleConfig.method
    layer = oracle_layer(backbone, method, None)
    with torch.inference_mode(False), torch.no_grad():
        tokens = backbone.embed(backbone.pixel_values(frames[None]))
        found = make_oracle(method, layer).values(backbone, tokens, torch.tensor([class_id]))
    scores = scores_from_cam(found.cam)[0].reshape(backbone.grid).cpu().numpy()
    probability = found.logits[0].softmax(-1)[class_id].item()
    flat = "" if scores.any() else "; flat: no token stands out"
    return Panel(
        name=f"oracle: {method}@{layer} of the label {label!r}, which the whole model gives "
        f"{probability:.1%}; 1 is the best of the clip{flat}",
        frames=heat(frames, scores),
        scale=(0.0, 1.0),
    )
