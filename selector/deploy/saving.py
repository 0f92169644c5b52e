"""Writing a deployable model: what its folder then holds is the model that was in memory.

transformers' own `save_pretrained` keeps all weights in one place. Here every part has a folder of
its own, because each is also read alone: the selector by the readers of what `train-selector`
writes, the backbone by transformers. The configuration, the processor and the card beside them
make the whole a folder of transformers too (`selector.deploy.auto`).
"""

from __future__ import annotations

import copy
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from pipeline.backbones import hub
from pipeline.backbones.checkpoint import find_checkpoint
from pipeline.backbones.preprocessing import IMAGE_PROCESSOR_NAME, PROCESSOR_NAMES
from pipeline.backbones.saving import (
    copy_checkpoint,
    holds,
    precision_of,
    same_weights,
    save_backbone,
)
from pipeline.errors import ConfigError, HubError
from selector.budgets.confidence_names import load_confidence, local_place, with_place
from selector.deploy.card import CARD_NAME, may_replace_card, model_card
from selector.deploy.config import LITE_NAME, LiteConfig
from selector.deploy.files import BACKBONE_NAME, CONFIDENCE_NAME
from selector.deploy.replacing import is_left_by_a_save, replacing
from selector.deploy.transformers_config import is_model_config, transformers_config
from selector.deploy.video_processor import video_processor
from selector.training.files import CONFIG_NAME, SELECTOR_NAME, WEIGHTS_NAME, save_selector
from selector.training.model import TokenSelector

if TYPE_CHECKING:
    from selector.deploy.model import LiteModel

PARTS = (SELECTOR_NAME, BACKBONE_NAME, CONFIDENCE_NAME)
ENTRIES = (CONFIG_NAME, *PROCESSOR_NAMES, LITE_NAME, *PARTS, WEIGHTS_NAME)
"""All that a model's folder has of a model; other entries are not ours.

The last is a selector's that lay in the folder itself, as `train-selector` writes it.
"""


def check_replaceable(folder: Path) -> None:
    """Refuse a folder with entries of a model's names that are not a model's of this program.

    The `config.json` of a checkpoint, or a folder `backbone` of a user's, would be replaced.

    Raises:
        ConfigError: names them.
    """
    ours = (LITE_NAME, WEIGHTS_NAME, f"{SELECTOR_NAME}/{WEIGHTS_NAME}")
    if any((folder / name).is_file() for name in ours) or is_left_by_a_save(folder):
        return
    others = [name for name in (CONFIG_NAME, *PARTS) if (folder / name).exists()]
    if CONFIG_NAME in others and is_model_config(folder / CONFIG_NAME):
        others.remove(CONFIG_NAME)
    if others:
        raise ConfigError(
            f"{folder} holds {' and '.join(others)} of something else, a checkpoint perhaps, which "
            "would be replaced: name another folder"
        )


def save_model(
    model: LiteModel, folder: Path, with_backbone: bool, max_shard_size: str | int | None = None
) -> None:
    """Make a folder's model this one; see `LiteModel.save_pretrained`.

    Raises:
        ConfigError: a part cannot be written as it is in memory, or the folder has something else
            in it; the folder is as before.
        BackboneError: that part is the backbone.
    """
    check_replaceable(folder)
    entries = ENTRIES + (CARD_NAME,) * may_replace_card(folder / CARD_NAME)
    with replacing(folder, entries) as new:
        config = replace(model.config, precision=precision_of(model.backbone))
        source = find_checkpoint(model.backbone_name, model.revision)
        if with_backbone:
            digest = save_backbone(model.backbone, source, new / BACKBONE_NAME, max_shard_size)
            config = replace(config, backbone=None, revision=None, backbone_digest=None)
        else:
            digest = model.backbone.digest
            name = _name_alone(model, folder)
            config = replace(config, backbone=name, revision=model.revision, backbone_digest=digest)
        if model.selector is not None:
            _save_selector(model.selector, digest, new / SELECTOR_NAME)
        if model.confidence is not None:
            config = _with_confidence(model, config, new / CONFIDENCE_NAME)
        config.save(new)
        transformers_config(model).save_pretrained(new)
        video_processor(model).save_pretrained(new)
        if (source / IMAGE_PROCESSOR_NAME).is_file():
            shutil.copyfile(source / IMAGE_PROCESSOR_NAME, new / IMAGE_PROCESSOR_NAME)
        if CARD_NAME in entries:
            (new / CARD_NAME).write_text(model_card(model))


def push_model(model: LiteModel, repo_id: str, private: bool | None, with_backbone: bool) -> str:
    """Make a hub repository's model this one; see `LiteModel.push_to_hub`.

    Raises:
        ConfigError: the hub is out of reach, or refuses, or the model cannot be written.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    if not with_backbone and Path(model.backbone_name).expanduser().exists():
        raise ConfigError(
            f"the backbone {model.backbone_name} lies on this machine, where nobody else finds it: "
            "upload the model with its backbone"
        )
    api = HfApi()
    stale = [*ENTRIES, *(f"{name}/*" for name in PARTS)]
    with tempfile.TemporaryDirectory() as temporary:
        save_model(model, Path(temporary), with_backbone)

        def upload() -> str:
            api.create_repo(repo_id, private=private, exist_ok=True)
            try:
                # Not by the cache, which gives an old copy where the hub stumbles.
                with tempfile.TemporaryDirectory() as cache:
                    card = Path(api.hf_hub_download(repo_id, CARD_NAME, cache_dir=cache))
                    ignored = [] if may_replace_card(card) else [CARD_NAME]
            except LocalEntryNotFoundError:  # it may be there, and the hub did not say
                raise
            except EntryNotFoundError:
                ignored = []
            return str(
                api.upload_folder(
                    repo_id=repo_id,
                    folder_path=temporary,
                    commit_message="Upload a LITE model",
                    delete_patterns=stale,
                    ignore_patterns=ignored,
                )
            )

        try:
            return hub.retried(repo_id, None, upload)
        except HubError as error:
            raise ConfigError(
                f"cannot upload to {error}; is the name yours, and are you logged in "
                "(`hf auth login`)?"
            ) from error


def _name_alone(model: LiteModel, folder: Path) -> str:
    """The backbone's name for a folder that is to hold no more of it."""
    source = find_checkpoint(model.backbone_name, model.revision)
    if source.resolve().is_relative_to(folder.resolve()):
        raise ConfigError(
            f"the backbone lies in {folder} itself, which would lose it: save it there with its "
            "backbone, or elsewhere"
        )
    if not holds(source, model.backbone):
        raise ConfigError(
            f"the backbone in memory is no longer the checkpoint {model.backbone_name}, so its "
            "name does not do: save the model with its backbone"
        )
    named = Path(model.backbone_name).expanduser()
    return str(named.absolute()) if named.is_dir() else model.backbone_name


def _save_selector(selector: TokenSelector, digest: str, folder: Path) -> None:
    if any(weight.dtype != torch.float32 for weight in selector.state_dict().values()):
        raise ConfigError(
            "the selector ranks in single precision, and this one was cast to another: load the "
            "model in the precision wanted (from_pretrained(..., precision=...)), which leaves "
            "the selector's weights exact"
        )
    if digest != selector.config.backbone_digest:  # the backbone learnt, and it belongs to it still
        selector = copy.copy(selector)
        selector.config = replace(selector.config, backbone_digest=digest)
    save_selector(selector, folder)


def _with_confidence(model: LiteModel, config: LiteConfig, folder: Path) -> LiteConfig:
    """The configuration with the confidence's place in `folder`, where it was a place here.

    Names of the hub and of torchvision mean the same everywhere; a folder or file is copied.
    """
    spec = config.confidence
    assert model.confidence is not None
    if not same_weights(load_confidence(spec, model.backbone), model.confidence):
        raise ConfigError(
            f"the confidence in memory is no longer {spec}: write it with its own save_pretrained, "
            "and name that folder in the model's configuration"
        )
    place = local_place(spec)
    if place is None:
        return config
    if place.is_dir():
        copy_checkpoint(place, folder)
        return replace(config, confidence=with_place(spec, folder))
    folder.mkdir()
    shutil.copyfile(place, folder / place.name)
    return replace(config, confidence=with_place(spec, folder / place.name))
