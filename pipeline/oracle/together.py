"""Several oracles of the same clips: one forward pass for all class-activation maps among them."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from pipeline.backbones.base import Backbone
from pipeline.backbones.tokens import Tokens
from pipeline.config import LABEL, OracleName
from pipeline.oracle.base import OracleMaps
from pipeline.oracle.cam import CAM_METHODS, CamTarget, class_activation_maps
from pipeline.oracle.names import make_oracle


def values_together(
    names: Sequence[OracleName], backbone: Backbone, tokens: Tokens, labels: Tensor
) -> list[OracleMaps]:
    """What each oracle says by itself, for less.

    An oracle that is no class-activation map (occlusion) has nothing to share and runs alone.

    Args:
        names: the oracles, their layers as `pipeline.oracle.names.resolve_oracle` gives them.
        backbone: frozen model.
        tokens: from `backbone.embed`, all of them.
        labels: int64 (B,), the true classes; not looked at by an oracle of the predicted class.

    Returns:
        One entry an oracle, in their order.

    Raises:
        ConfigError: the backbone has no such layer, or none that says anything.
    """
    classes = {name: labels if name.target == LABEL else None for name in names}
    sharing = [name for name in names if name.method in CAM_METHODS]
    targets = [CamTarget(name.layer, name.method, classes[name]) for name in sharing]
    found = dict(zip(sharing, class_activation_maps(backbone, tokens, targets), strict=True))
    for name in names:
        if name not in found:
            oracle = make_oracle(name.method, name.layer)
            found[name] = oracle.values(backbone, tokens, classes[name])
    return [found[name] for name in names]
