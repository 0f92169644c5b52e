"""A deployable model's folder: a selector's files, `lite.json`, and perhaps `backbone/`."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from pipeline.backbones import Backbone, load_backbone
from pipeline.backbones.checkpoint import find_checkpoint, weight_files
from pipeline.errors import BackboneError, ConfigError
from selector.lite_config import LiteConfig
from selector.model import TokenSelector
from selector.saving import load_selector, save_selector

BACKBONE_NAME = "backbone"
_WANTED = ["*.json", "*.safetensors", f"{BACKBONE_NAME}/*"]


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
) -> tuple[Backbone, TokenSelector, LiteConfig, str]:
    """Backbone, selector, configuration and the backbone's name; see `LiteModel.from_pretrained`.

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
        name, at = config.backbone or selector.config.backbone, config.revision
    try:
        return load_backbone(name, at, device, precision), selector, config, name
    except BackboneError as error:
        raise BackboneError(
            f"{error} (the selector in {folder} works on that backbone only; if it lies elsewhere "
            "now, say where)"
        ) from error


def save_parts(
    folder: Path,
    selector: TokenSelector,
    config: LiteConfig,
    backbone_name: str,
    with_backbone: bool,
) -> None:
    """Write a model's folder; see `LiteModel.save_pretrained`."""
    save_selector(selector, folder)
    if with_backbone:
        source, target = find_checkpoint(backbone_name, config.revision), folder / BACKBONE_NAME
        target.mkdir(exist_ok=True)
        if not source.samefile(target):
            for file in [*source.glob("*.json"), *weight_files(source)]:
                shutil.copyfile(file, target / file.name)
        replace(config, backbone=None, revision=None).save(folder)
    else:
        replace(config, backbone=backbone_name).save(folder)


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
