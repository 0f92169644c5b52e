"""The checkpoint that built a store, for what the store alone does not say."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.backbones import load_backbone
from pipeline.errors import BackboneError

if TYPE_CHECKING:
    from pipeline.backbones import Backbone
    from pipeline.store.reader import Store


def load_store_backbone(store: Store, device: str, without: str) -> Backbone:
    """Loads the checkpoint that a store names, and no other in its place.

    Args:
        store: that it built.
        device: as of `load_backbone`; on `meta` no weight is read.
        without: what cannot be done without it, for the error.

    Raises:
        BackboneError: it does not load, or is another one by now.
    """
    config = store.config
    try:
        backbone = load_backbone(config.backbone, config.revision, device)
    except BackboneError as error:
        raise BackboneError(
            f"without the checkpoint that built {store.root}, {without}: {error}"
        ) from error
    if backbone.digest != config.backbone_digest:
        raise BackboneError(
            f"the checkpoint {config.backbone} is not the one that built {store.root} "
            f"(digest {backbone.digest[:12]}, there {config.backbone_digest[:12]}): {without}"
        )
    return backbone
