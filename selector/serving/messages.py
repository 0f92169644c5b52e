"""What the server and the model's process say to each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """Which model, and how it answers."""

    model: str
    """Folder or hub id, as `LiteModel.from_pretrained` takes it."""
    keep_ratio: float | None = None
    adaptive: bool | None = None
    """Both as `LiteModel.forward` has them."""
    top: int = 5
    """Classes to report."""
    device: str = "auto"
    """`cpu`, `cuda`, or `auto`."""
    precision: str | None = None
    threads: int | None = None
    """CPU threads; None for torch's default."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a video got."""

    fields: dict[str, Any]
    """As `selector.deploy.predict.to_json` has it, without the video's name."""
    kept: npt.NDArray[np.bool_]
    """bool (t, y, x), the kept tokens of the first view."""
    scores: npt.NDArray[np.float32] | None
    group: npt.NDArray[np.int64] | None
    """Both as `selector.deploy.predict.Prediction` has them."""
    method: str
    """What decided."""
