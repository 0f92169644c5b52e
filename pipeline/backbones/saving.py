"""Writing a backbone as it is in memory, which may no longer be what its checkpoint holds."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pipeline.backbones import DTYPES, Backbone, load_backbone
from pipeline.backbones.checkpoint import checkpoint_digest, checkpoint_files, no_progress_bar
from pipeline.backbones.preprocessing import PROCESSOR_NAMES
from pipeline.errors import BackboneError

_OF_A_FILE = {"_name_or_path", "dtype", "torch_dtype", "transformers_version", "architectures"}


def save_backbone(
    backbone: Backbone, source: Path, folder: Path, max_shard_size: str | int | None = None
) -> str:
    """Write a checkpoint that loads as `backbone` is.

    Where the weights in memory are those of the checkpoint they came from, its files are copied, so
    that its identity stays; in half precision they are more exact than the memory.

    Args:
        backbone: perhaps trained or cast since it was loaded.
        source: folder of the checkpoint it was loaded from.
        folder: made here.
        max_shard_size: of a file of weights, as transformers' `save_pretrained` has it; then the
            weights are written anew also where they are the checkpoint's.

    Returns:
        The digest of what was written.

    Raises:
        BackboneError: it is no plain model any more, or of several precisions.
    """
    if max_shard_size is None and holds(source, backbone):
        copy_checkpoint(source, folder)
        return backbone.digest
    try:
        with no_progress_bar():
            options = {} if max_shard_size is None else {"max_shard_size": max_shard_size}
            backbone.model.save_pretrained(folder, **options)
    except Exception as error:  # of three serialisers
        raise BackboneError(
            f"cannot write the backbone: {type(error).__name__}: {error}"
        ) from error
    for name in PROCESSOR_NAMES:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)
    try:
        written = load_backbone(str(folder), precision=precision_of(backbone))
    except BackboneError as error:
        raise BackboneError(
            "the backbone in memory is no plain checkpoint's model any more, so what was written "
            "of it does not load; merge adapters and undo wrappers and quantisation first: "
            f"{error}"
        ) from error
    if not _same(written, backbone):
        raise BackboneError(
            "the backbone in memory cannot be written as a checkpoint: its processor is not that "
            f"of {source}, or a weight does not come back as it is"
        )
    return written.digest


def holds(source: Path, backbone: Backbone) -> bool:
    """Whether a checkpoint's files, loaded in the precision of `backbone`, are what it is now.

    Raises:
        BackboneError: the backbone is of several precisions.
    """
    precision = precision_of(backbone)
    if checkpoint_digest(source) != backbone.digest:
        return False
    return _same(load_backbone(str(source), precision=precision), backbone)


def precision_of(backbone: Backbone) -> str:
    """Name of the one precision of all weights.

    Raises:
        BackboneError: there are several, or one in which no backbone loads, or weights are no plain
            tensors, such as quantised ones.
    """
    kinds = {type(weight.data).__name__ for weight in backbone.parameters()} - {"Tensor"}
    if kinds:
        raise BackboneError(
            f"the backbone's weights are {', '.join(sorted(kinds))}, which a checkpoint does not "
            "hold: save the model before it is quantised or split over devices"
        )
    found = {weight.dtype for weight in backbone.parameters()}
    names = [name for name, dtype in DTYPES.items() if {dtype} == found]
    if not names:
        raise BackboneError(
            f"the backbone's weights are {', '.join(sorted(map(str, found)))}: cast them to one of "
            f"{', '.join(str(dtype) for dtype in DTYPES.values())} first"
        )
    return names[0]


def copy_checkpoint(source: Path, folder: Path) -> None:
    """Copy the files that a checkpoint consists of into a new folder."""
    folder.mkdir()
    for file in checkpoint_files(source):
        shutil.copyfile(file, folder / file.name)


def same_weights(one: nn.Module, other: nn.Module) -> bool:
    """Whether all parameters and buffers are equal, wherever they are."""
    weights, others = one.state_dict(), other.state_dict()
    return weights.keys() == others.keys() and all(
        weights[name].dtype == value.dtype and torch.equal(weights[name].cpu(), value.cpu())
        for name, value in others.items()
    )


def _same(one: Backbone, other: Backbone) -> bool:
    return (
        one.preprocessing == other.preprocessing
        and _config(one) == _config(other)
        and same_weights(one, other)
    )


def _config(backbone: Backbone) -> dict[str, Any]:
    values: dict[str, Any] = backbone.model.config.to_dict()
    return {name: value for name, value in values.items() if name not in _OF_A_FILE}
