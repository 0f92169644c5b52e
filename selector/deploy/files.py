"""Finding and reading a deployable model's folder: `lite.json` and its parts.

The parts are `selector/` (or, in a folder that `train-selector` wrote, the selector's files
themselves), perhaps `backbone/`, the checkpoint, and `confidence/`, the classifier that a budget
asks. What `save_pretrained` wrote is also a folder of transformers, whose `config.json` and
processor lie beside them.
"""

from __future__ import annotations

from pathlib import Path

from pipeline.backbones import Backbone, hub, load_backbone
from pipeline.errors import BackboneError, ConfigError, HubError
from selector.deploy.config import LiteConfig
from selector.deploy.replacing import check_whole
from selector.training.files import SELECTOR_NAME, WEIGHTS_NAME, load_selector, selector_folder
from selector.training.model import TokenSelector

BACKBONE_NAME = "backbone"
CONFIDENCE_NAME = "confidence"
_WANTED = ["*.json", "*.safetensors"]
_WANTED += [f"{name}/*" for name in (SELECTOR_NAME, BACKBONE_NAME, CONFIDENCE_NAME)]


def find_model(name_or_path: str, revision: str | None = None) -> Path:
    """The local folder of a model, downloading a hub id if need be.

    Raises:
        ConfigError: neither a folder nor reachable on the hub.
    """
    folder = Path(name_or_path).expanduser()
    if folder.is_file():
        raise ConfigError(f"{folder} is a file; give the folder that save_pretrained wrote")
    if folder.is_dir():
        check_whole(folder)
        return folder
    try:
        return hub.download(name_or_path, revision, _WANTED)
    except HubError as error:
        raise ConfigError(
            f"model {name_or_path!r} is neither a folder here nor on the hub; give a folder that "
            f"train-selector or save_pretrained wrote ({error})"
        ) from error


def load_parts(
    name_or_path: str,
    revision: str | None,
    device: str,
    precision: str | None,
    backbone: str | None,
    method: str | None = None,
) -> tuple[Backbone, TokenSelector | None, LiteConfig, tuple[str, str | None]]:
    """Backbone, selector, configuration, and the backbone's name and hub revision.

    See `LiteModel.from_pretrained`.

    Raises:
        ConfigError: a file is missing or damaged.
        BackboneError: the backbone is not found or does not load faithfully.
    """
    folder = find_model(name_or_path, revision)
    config = LiteConfig.load(folder)
    if method is not None:
        config = config.with_method(method)
    # A selector that is there says how frames are sampled, whatever the method.
    has_selector = config.needs_selector or (selector_folder(folder) / WEIGHTS_NAME).is_file()
    selector = load_selector(folder) if has_selector else None
    embedded = folder / BACKBONE_NAME
    if backbone is not None:
        name, at = backbone, None
    elif embedded.is_dir():
        name, at = str(embedded), None
    else:
        name, at = config.backbone_of(selector.config if selector is not None else None)
    try:
        loaded = load_backbone(name, at, device, precision or config.precision)
    except BackboneError as error:
        raise BackboneError(
            f"{error} (the selector in {folder} works on that backbone only; if it lies elsewhere "
            "now, say where)"
        ) from error
    if backbone is None and not embedded.is_dir() and selector is None:  # which has its own digest
        _check_same(folder, name, config.backbone_digest, loaded.digest)
    return loaded, selector, config, (name, at)


def _check_same(folder: Path, name: str, then: str | None, now: str) -> None:
    """Refuse a checkpoint that was exchanged since a model was saved that only names it."""
    if then not in (None, now):
        raise ConfigError(
            f"the model in {folder} was made with another checkpoint than {name} is now (digest "
            f"{now[:12]}, then {then[:12]}): put that one back, say where it is, or make the "
            "model anew"
        )
