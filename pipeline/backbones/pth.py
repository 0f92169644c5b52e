"""Reading the weights in a `.pth` file, which may hold much else, without running code."""

from __future__ import annotations

import argparse
import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.errors import BackboneError, ConfigError

_ENTRIES = ("model", "module", "state_dict", "model_ema")
"""Where weights may be: in the states of a PyTorch and of a DeepSpeed training, and averages."""


@dataclass(frozen=True)
class PthFile:
    """What is of use in a file.

    Attributes:
        weights: of the model, without the prefix of a wrapper.
        arguments: of the training, where the file has them.
    """

    weights: dict[str, Tensor]
    arguments: Mapping[str, Any]


def read_pth(file: Path, entry: str | None, known_key: str) -> PthFile:
    """Read the weights of a model without running code.

    Args:
        file: what `torch.save` wrote: a state dict, or a training's state that holds one.
        entry: which of several weights it holds.
        known_key: a key that the model has; what stands before it in the file is a wrapper's.

    Raises:
        BackboneError: it cannot be read, or holds no weights.
        ConfigError: it holds several, and `entry` does not say which.
    """
    content = _content(file)
    weights = _weights(file, content, entry)
    prefix = next((key.removesuffix(known_key) for key in weights if key.endswith(known_key)), "")
    bare = {key.removeprefix(prefix): value for key, value in weights.items()}
    if len(bare) != len(weights):
        raise BackboneError(f"{file} holds keys both with and without {prefix!r} before them")
    trained = content.get("args")
    return PthFile(bare, vars(trained) if isinstance(trained, argparse.Namespace) else {})


def _content(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise BackboneError(
            f"{file} is no file: give the .pth itself (of a DeepSpeed training "
            "mp_rank_00_model_states.pt)"
        )
    try:
        # The training's arguments are a Namespace, which is a bag of values and runs nothing.
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(file, map_location="cpu", weights_only=True, mmap=_can_map(file))
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        raise BackboneError(
            f"{file} is no file of tensors: it wants {found[1] if found else 'other objects'} to "
            "be built, which may run code. If you trust it, load it where it was made and save "
            'torch.save({"model": model.state_dict()}, ...)'
        ) from error
    except Exception as error:  # a damaged file may raise anything
        raise BackboneError(f"cannot read {file}: {type(error).__name__}: {error}") from error
    if not isinstance(content, dict):
        raise BackboneError(f"{file} holds a {type(content).__name__}, not a state dict")
    return content


def _can_map(file: Path) -> bool:
    """Whether it is of the format since PyTorch 1.6, of which only what is used is read."""
    with file.open("rb") as opened:
        return opened.read(2) == b"PK"


def _weights(file: Path, content: dict[str, Any], entry: str | None) -> dict[str, Tensor]:
    found = {name: content[name] for name in _ENTRIES if _is_weights(content.get(name))}
    if _is_weights(content):
        found = {"": content}
    if entry is not None:
        if entry not in found:
            there = ", ".join(name for name in found if name) or "none by a name"
            raise BackboneError(f"{file} has no weights called {entry!r}; it has {there}")
    elif len(found) != 1:
        if found:
            raise ConfigError(
                f"{file} holds several weights, {' and '.join(found)}: say which, --entry NAME"
            )
        raise BackboneError(
            f"{file} holds no weights under {', '.join(_ENTRIES)}, only "
            f"{', '.join(map(str, list(content)[:5])) or 'nothing'}"
        )
    weights: dict[str, Tensor] = found[entry or next(iter(found))]
    return weights


def _is_weights(value: object) -> bool:
    return (
        isinstance(value, dict)
        and bool(value)
        and all(
            isinstance(key, str) and isinstance(tensor, Tensor) for key, tensor in value.items()
        )
    )
