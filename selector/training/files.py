"""What a training leaves in its folder: the checkpoint to go on from, the log, the result."""

from __future__ import annotations

import io
import json
import math
import pickle
import warnings
from pathlib import Path
from typing import Any

import torch

from pipeline.errors import ConfigError
from selector.training.saving import write_file

CHECKPOINT_NAME = "checkpoint.pt"
METRICS_NAME = "metrics.json"
TENSORBOARD_NAME = "tensorboard"


class TrainingFiles:
    """The files of one training.

    Args:
        folder: where they lie; made if needed.
        identity: all that decides the outcome, as plain JSON values. Neither a checkpoint nor a
            result of another identity is taken for one's own.
    """

    def __init__(self, folder: Path, identity: dict[str, Any]) -> None:
        self.folder = folder
        self.identity: dict[str, Any] = json.loads(json.dumps(identity))
        folder.mkdir(parents=True, exist_ok=True)

    def write_checkpoint(self, state: dict[str, Any]) -> None:
        """Replaces the checkpoint; a kill leaves the old one or the new one."""
        buffer = io.BytesIO()
        torch.save({"identity": self.identity, "state": state}, buffer)
        write_file(self.folder / CHECKPOINT_NAME, buffer.getvalue())

    def read_checkpoint(self) -> dict[str, Any] | None:
        """The state to go on from, on the CPU; None where none was written.

        Raises:
            ConfigError: it is damaged, or of another training.
        """
        path = self.folder / CHECKPOINT_NAME
        if not path.is_file():
            return None
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
            identity, state = content["identity"], content["state"]
        except (RuntimeError, pickle.UnpicklingError, EOFError, KeyError, TypeError) as error:
            raise ConfigError(
                f"{str(path)!r} is damaged ({error}); remove it to train from the start"
            ) from error
        self._check_same(identity, path)
        found: dict[str, Any] = state
        return found

    def write_metrics(self, metrics: dict[str, Any]) -> None:
        """Writes the result (JSON values), which ends the training, and removes the checkpoint."""
        content = {"training": self.identity} | metrics
        write_file(self.folder / METRICS_NAME, (json.dumps(content, indent=2) + "\n").encode())
        (self.folder / CHECKPOINT_NAME).unlink(missing_ok=True)

    def read_metrics(self) -> dict[str, Any] | None:
        """The result of a training that ended; None where there is none.

        Raises:
            ConfigError: it is damaged, or of another training.
        """
        path = self.folder / METRICS_NAME
        if not path.is_file():
            return None
        try:
            content: dict[str, Any] = json.loads(path.read_text())
            identity = content.pop("training")
        except (ValueError, KeyError, AttributeError) as error:
            raise ConfigError(
                f"{str(path)!r} is damaged ({error!r}); remove it to train again"
            ) from error
        self._check_same(identity, path)
        return content

    def _check_same(self, found: dict[str, Any], path: Path) -> None:
        names = sorted(set(found) | set(self.identity))
        changed = [n for n in names if found.get(n) != self.identity.get(n)]
        if changed:
            lines = ", ".join(f"{n} {found.get(n)} -> {self.identity.get(n)}" for n in changed)
            raise ConfigError(
                f"{str(path.parent)!r} holds another training (there -> asked for): {lines}; "
                "choose another --out, or remove that folder"
            )


class TrainLog:
    """TensorBoard curves of a training; a context manager.

    Args:
        folder: the training's folder.
        first_epoch: curves from here on are cut off before new points are added, so that an epoch
            trained twice after an interruption is drawn once.
    """

    def __init__(self, folder: Path, first_epoch: int) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # tensorboard's own imports
            from torch.utils.tensorboard import SummaryWriter
        self._writer = SummaryWriter(str(folder / TENSORBOARD_NAME), purge_step=first_epoch)

    def add(self, epoch: int, values: dict[str, float]) -> None:
        """Adds one point per curve."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, epoch)
        self._writer.flush()

    def __enter__(self) -> TrainLog:
        return self

    def __exit__(self, *exception: object) -> None:
        self._writer.close()


def json_values(value: Any) -> Any:
    """Plain JSON values; NaN, which JSON lacks, becomes null."""
    if isinstance(value, dict):
        return {str(k): json_values(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [json_values(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
