"""What a training leaves in its folder: the state to resume from, and the checkpoint to use."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch

from pipeline.errors import ConfigError
from pipeline.standin.config import BackboneConfig
from pipeline.standin.model import MEAN, STD
from pipeline.store.layout import RUNS
from pipeline.store.lock import StoreLock
from pipeline.store.root import Root, is_temporary, write_file

STATE = "state.pt"
SETTINGS = "training.json"


class Settings(Protocol):
    """What decides a training."""

    def to_dict(self) -> dict[str, Any]:
        """All fields as plain JSON values."""


@contextmanager
def claimed(out: Path, config: Settings) -> Iterator[None]:
    """Makes `out` this training's folder, and nobody else's meanwhile.

    Raises:
        ConfigError: it holds something else, or a training with other settings (lists them).
        StoreError: another training is writing there.
    """
    path = out / SETTINGS
    if path.is_file():
        found = json.loads(path.read_text())
        wanted = config.to_dict()
        differ = [
            f"{name}: {found.get(name)!r} -> {wanted[name]!r}"
            for name in wanted
            if name != "steps" and found.get(name) != wanted[name]
        ]
        if differ:
            raise ConfigError(
                f"{out} was trained with other settings ({'; '.join(differ)}): "
                "repeat those, or name another folder"
            )
    elif out.exists() and (not out.is_dir() or not _is_untouched(out)):
        raise ConfigError(f"{out} is not an empty folder; name a new one")
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = StoreLock(Root(str(out)))
        write_file(path, json.dumps(config.to_dict(), indent=1).encode())
    except OSError as error:
        raise ConfigError(f"cannot write to {out}: {error}") from error
    try:
        yield
    finally:
        lock.release()


def _is_untouched(out: Path) -> bool:
    """Whether no training has begun there; a kill at the start leaves a lock or half a file."""
    return all(path.name == RUNS or is_temporary(path.name) for path in out.iterdir())


def save_state(out: Path, state: dict[str, Any]) -> None:
    """Writes the training's state; a crash leaves the previous one."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_file(out / STATE, buffer.getvalue())


def load_state(out: Path, device: str) -> dict[str, Any] | None:
    """The state to resume from; None where nothing was saved yet."""
    path = out / STATE
    if not path.is_file():
        return None
    return dict(torch.load(path, map_location=device, weights_only=True))


def export(model: Any, out: Path, config: BackboneConfig) -> None:
    """Writes the checkpoint that `--backbone` loads: weights, configuration, processor."""
    from transformers import VideoMAEImageProcessor
    from transformers.utils import logging as hf_logging

    hf_logging.disable_progress_bar()  # one file of 3 MB needs no bar
    model.save_pretrained(out)
    side = config.image_size
    VideoMAEImageProcessor(
        size={"shortest_edge": side},
        crop_size={"height": side, "width": side},
        image_mean=list(MEAN),
        image_std=list(STD),
    ).save_pretrained(out)
