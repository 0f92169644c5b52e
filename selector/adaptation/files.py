"""What an adaptation says of itself, and the file that ends it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError
from pipeline.store.layout import RUNS
from selector.deploy.saving import ENTRIES
from selector.training.files import CHECKPOINT_NAME, TrainingFiles

RESULT_NAME = "adaptation.json"
CACHE_NAME = "cache"


@dataclass(frozen=True)
class Judged:
    """How the model does on the held-out clips at one keep ratio."""

    loss: float
    """Cross-entropy with the labels, or the divergence from the full model's answer."""
    top1: float | None
    """Share that is right; None without labels."""
    agreement: float
    """Share with the class that the full model, not adapted, predicts."""


@dataclass(frozen=True, kw_only=True)
class AdaptResult:
    """What came out."""

    before: dict[float, Judged]
    """By keep ratio, 1 first: the backbone as it was, with the method's masks."""
    after: dict[float, Judged]
    """The adapted one."""
    best_step: int
    """Step the weights are from; 0: no step was better than none, and nothing is changed."""
    num_steps: int
    """Steps that were trained."""
    stopped: str
    """Why it ended: `steps`, `patience`, or `time`."""
    seconds: float
    """Of training and validating."""
    num_train: int
    num_held_out: int
    history: list[dict[str, Any]]
    """Per look: step, loss, held_out (the loss that decides), judged, seconds."""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def check_free(out: Path) -> None:
    """Refuses a folder with something else in it, which saving the model might replace.

    Raises:
        ConfigError: says what lies there.
    """
    if not out.is_dir() or any((out / name).is_file() for name in (RESULT_NAME, CHECKPOINT_NAME)):
        return
    others = sorted(p.name for p in out.iterdir() if p.name not in (RUNS, CACHE_NAME))
    others = [name for name in others if name in ENTRIES or not name.startswith(".")]
    if others:
        raise ConfigError(f"{out} holds {', '.join(others[:3])}: name a new folder for --out")


def write_result(files: TrainingFiles, result: AdaptResult) -> None:
    """Writes `adaptation.json`, which ends the training."""
    content = {"adaptation": files.identity} | result.to_dict()
    files.root.put(RESULT_NAME, (json.dumps(content, indent=2) + "\n").encode())
    files.root.remove(CHECKPOINT_NAME)


def read_result(files: TrainingFiles) -> AdaptResult | None:
    """The result of an adaptation that ended; None where there is none.

    Raises:
        ConfigError: it is damaged, or of another adaptation.
    """
    path = files.folder / RESULT_NAME
    if not path.is_file():
        return None
    try:
        content: dict[str, Any] = json.loads(path.read_bytes())
        identity = content.pop("adaptation")
        for name in ("before", "after"):
            content[name] = {float(k): Judged(**v) for k, v in content[name].items()}
        result = AdaptResult(**content)
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ConfigError(
            f"{str(path)!r} is damaged ({error!r}); remove the folder to adapt again"
        ) from error
    files.check_same(identity, path)
    return result
