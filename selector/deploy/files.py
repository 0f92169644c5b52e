"""A deployable model's folder: a selector's files and `lite.json`.

Perhaps also `backbone/`, the checkpoint, and `confidence/`, the classifier that a budget asks.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from pipeline.backbones import Backbone, load_backbone
from pipeline.backbones.checkpoint import find_checkpoint, weight_files
from pipeline.errors import BackboneError, ConfigError
from selector.budgets.confidence_names import local_place, with_place
from selector.deploy.config import LiteConfig
from selector.training.files import load_selector, save_selector
from selector.training.model import TokenSelector

BACKBONE_NAME = "backbone"
CONFIDENCE_NAME = "confidence"
_WANTED = ["*.json", "*.safetensors", f"{BACKBONE_NAME}/*", f"{CONFIDENCE_NAME}/*"]


def find_model(name_or_path: str, revision: str | None = None) -> Path:
    """The local folder of a model, downloading a hub id if need be.

    Raises:
        ConfigError: neither a folder nor reachable on the hub.
    """
    folder = Path(name_or_path).expanduser()
    if folder.is_dir():
        return folder
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name_or_path, revision=revision, allow_patterns=_WANTED))
    except Exception as error:  # the hub client raises a dozen unrelated types
        raise ConfigError(
            f"model {name_or_path!r} is neither a folder here nor on the hub (revision "
            f"{revision or 'main'}); give a folder that train-selector or save_pretrained wrote "
            f"({type(error).__name__}: {error})"
        ) from error


def load_parts(
    name_or_path: str, revision: str | None, device: str, precision: str, backbone: str | None
) -> tuple[Backbone, TokenSelector, LiteConfig, tuple[str, str | None]]:
    """Backbone, selector, configuration, and the backbone's name and hub revision.

    See `LiteModel.from_pretrained`.

    Raises:
        ConfigError: a file is missing or damaged.
        BackboneError: the backbone is not found or does not load faithfully.
    """
    folder = find_model(name_or_path, revision)
    selector = load_selector(folder)
    config = LiteConfig.load(folder)
    embedded = folder / BACKBONE_NAME
    if backbone is not None:
        name, at = backbone, None
    elif embedded.is_dir():
        name, at = str(embedded), None
    else:
        name, at = config.backbone_of(selector.config)
    try:
        return load_backbone(name, at, device, precision), selector, config, (name, at)
    except BackboneError as error:
        raise BackboneError(
            f"{error} (the selector in {folder} works on that backbone only; if it lies elsewhere "
            "now, say where)"
        ) from error


def save_parts(
    folder: Path,
    selector: TokenSelector,
    config: LiteConfig,
    backbone: tuple[str, str | None],
    with_backbone: bool,
) -> None:
    """Write a model's folder; see `LiteModel.save_pretrained`."""
    save_selector(selector, folder)
    if with_backbone:
        source = find_checkpoint(*backbone)
        _copy_checkpoint(source, folder / BACKBONE_NAME)
        config = replace(config, backbone=None, revision=None)
    else:
        name, revision = backbone
        config = replace(config, backbone=name, revision=revision)
    place = local_place(config.confidence)
    if place is not None:
        # Always copied: unlike a checkpoint's name, this place means nothing elsewhere.
        copied = _copy_confidence(place, folder / CONFIDENCE_NAME)
        config = replace(config, confidence=with_place(config.confidence, copied))
    config.save(folder)


def _copy_checkpoint(source: Path, target: Path) -> None:
    files = [*source.glob("*.json"), *weight_files(source)]
    target.mkdir(exist_ok=True)
    if source.samefile(target):
        return
    for stale in [*target.glob("*.json"), *target.glob("*.safetensors"), *target.glob("*.bin")]:
        stale.unlink()  # of an earlier save; weights in another format might be preferred to these
    for file in files:
        shutil.copyfile(file, target / file.name)


def _copy_confidence(source: Path, target: Path) -> Path:
    """Copy a classifier's folder, or its one file; the place to load it from."""
    if source.is_dir():
        _copy_checkpoint(source, target)
        return target
    target.mkdir(exist_ok=True)
    copied = target / source.name
    if not (copied.exists() and source.samefile(copied)):
        shutil.copyfile(source, copied)
    return copied


def push_folder(repo_id: str, private: bool | None, save: Callable[[Path], None]) -> str:
    """Upload what `save` writes into a folder; the address of the commit.

    Raises:
        ConfigError: the hub is out of reach, or refuses.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    with tempfile.TemporaryDirectory() as temporary:
        save(Path(temporary))
        try:
            api.create_repo(repo_id, private=private, exist_ok=True)
            commit = api.upload_folder(
                repo_id=repo_id, folder_path=temporary, commit_message="Upload a LITE model"
            )
        except Exception as error:  # the hub client raises a dozen unrelated types
            raise ConfigError(
                f"cannot upload to {repo_id!r}: {type(error).__name__}: {error}; is the name "
                "yours, and are you logged in (`hf auth login`)?"
            ) from error
    return str(commit)
