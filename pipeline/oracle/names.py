"""The oracles by name, for `build-oracle --method` and `evaluate`'s `oracle[LAYER,METHOD]`."""

from __future__ import annotations

from pipeline.backbones.base import Backbone
from pipeline.config import DEFAULT_LAYER, OracleName, require_one_of
from pipeline.errors import ConfigError
from pipeline.oracle.base import Oracle
from pipeline.oracle.cam import CAM_METHODS, ClassActivationMap
from pipeline.oracle.occlusion import BOX, Occlusion, boxes

OCCLUSION = "occlusion"
METHODS = (*CAM_METHODS, OCCLUSION)


def default_layer(backbone: Backbone, method: str) -> str:
    """The layer that an oracle looks at where none is asked for, counted from the end.

    Args:
        backbone: whose head decides.
        method: one of `METHODS`.
    """
    if method == OCCLUSION:
        return "embeddings"
    # Where the head reads one token, the last block's output says nothing of the others.
    return "blocks.-1.norm1" if backbone.prefix else DEFAULT_LAYER


def oracle_layer(backbone: Backbone, method: str, layer: str | None) -> str:
    """The layer that an oracle looks at, with its absolute index.

    Args:
        backbone: whose layers are meant.
        method: one of `METHODS`.
        layer: `embeddings` or `blocks.N.(mlp|output|norm1)`; None for the method's default.

    Raises:
        ConfigError: no such method, no such layer, or one that says nothing to this method.
    """
    require_one_of("method", method, METHODS)
    if method == OCCLUSION and layer not in (None, "embeddings"):
        raise ConfigError(
            f"occlusion leaves tokens out before the first block and looks at no layer, got "
            f"{layer!r}: leave --layer out, or say embeddings"
        )
    if method == OCCLUSION and not backbone.prefix and len(boxes(backbone.grid, BOX)) == 1:
        raise ConfigError(
            f"occlusion leaves boxes of {'x'.join(map(str, BOX))} tokens out, and a clip of this "
            "backbone is one box: nothing would be left. Use another method"
        )
    layer = backbone.resolve_layer(layer or default_layer(backbone, method))
    if layer != "embeddings":
        backbone.layer_target(layer)
    return layer


def resolve_oracle(backbone: Backbone, name: OracleName) -> OracleName:
    """The same oracle, its layer as `oracle_layer` gives it.

    Raises:
        ConfigError: see `oracle_layer`.
    """
    return name._replace(layer=oracle_layer(backbone, name.method, name.layer or None))


def make_oracle(method: str, layer: str) -> Oracle:
    """An oracle; `layer` as `oracle_layer` gives it.

    Raises:
        ConfigError: no such method.
    """
    require_one_of("method", method, METHODS)
    return Occlusion() if method == OCCLUSION else ClassActivationMap(layer, method)
