"""A selector on disk: `selector.safetensors` and, written last, `config.json`."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from pipeline.errors import ConfigError
from selector.training.config import BackboneIdentity, SelectorConfig
from selector.training.model import TokenSelector

WEIGHTS_NAME = "selector.safetensors"
CONFIG_NAME = "config.json"


def write_file(path: Path, data: bytes) -> None:
    """Writes all of `data` or nothing: a temporary sibling, fsync, rename."""
    temp = path.with_name(f".{path.name}.tmp")
    with temp.open("wb") as f:
        f.write(data)
        f.flush()
        os.fsync(f.fileno())
    temp.replace(path)


def save_selector(model: TokenSelector, folder: str | Path) -> None:
    """Writes weights, input statistics and configuration into `folder`, made if needed."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    state = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    write_file(folder / WEIGHTS_NAME, save(state))
    write_file(folder / CONFIG_NAME, model.config.to_json().encode())


def load_selector(
    folder: str | Path,
    backbone: BackboneIdentity | None = None,
    device: str | torch.device = "cpu",
) -> TokenSelector:
    """Reads a selector, in evaluation mode.

    Args:
        folder: where `save_selector` wrote.
        backbone: the backbone it is to serve; None checks nothing (its own store's data only).
        device: where the weights go.

    Raises:
        ConfigError: there is no selector, it is damaged, or it belongs to another backbone.
    """
    folder = Path(folder)
    config_path, weights_path = folder / CONFIG_NAME, folder / WEIGHTS_NAME
    for path in (config_path, weights_path):
        if not path.is_file():
            raise ConfigError(
                f"no selector in {str(folder)!r}: {path.name} is missing; make one with "
                "`lite-pipeline train-selector --store DIR --out DIR`"
            )
    config = SelectorConfig.from_json(config_path.read_text(), str(config_path))
    if backbone is not None:
        config.check_fits(backbone)
    model = TokenSelector(config)
    try:
        model.load_state_dict(load(weights_path.read_bytes()))
    except (SafetensorError, RuntimeError) as error:
        raise ConfigError(
            f"{str(weights_path)!r} does not hold the weights its config.json describes: {error}"
        ) from error
    return model.to(device).eval()


def selector_digest(folder: str | Path) -> str:
    """SHA-256 over a selector's weights and configuration: its identity in what it is used for."""
    digest = hashlib.sha256()
    for name in (WEIGHTS_NAME, CONFIG_NAME):
        digest.update(hashlib.sha256((Path(folder) / name).read_bytes()).digest())
    return digest.hexdigest()
