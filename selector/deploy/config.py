"""What makes a selector's folder a deployable model: `lite.json`.

Without that file the defaults below hold, so the folder that `train-selector` writes is a model.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.clips.views import Sampling
from pipeline.config import PRECISIONS, require_one_of
from pipeline.errors import ConfigError
from pipeline.store.root import Root
from selector.budgets.clip_budget import Budget, ThresholdBudget, budget_from_dict, budget_to_dict
from selector.budgets.confidence_names import DEFAULT_CONFIDENCE, from_stored, to_stored
from selector.methods.keep import num_kept
from selector.methods.names import LITE, LITE_SPREAD
from selector.methods.registry import parse_method
from selector.training.config import SelectorConfig

LITE_NAME = "lite.json"
SCHEMA_VERSION = 2
_UNCALIBRATED: dict[str, Any] = {
    "budget": None, "calibration": None, "adaptive": False, "measured": None,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class LiteConfig:
    """How a model selects unless told otherwise.

    Raises:
        ConfigError: a field is outside its range.
    """

    method: str = LITE
    """What makes clips cheaper, a name of `selector.methods.registry`; `lite` is the selector."""
    spread: float = 0.0
    """How evenly the kept tokens lie; 0 keeps the best (see `selector.methods.spread`)."""
    keep_ratio: float = 0.5
    """Share of the tokens kept with a fixed budget."""
    budget: Budget | None = None
    """The adaptive budget; None: not calibrated yet."""
    confidence: str = DEFAULT_CONFIDENCE
    """What a `ThresholdBudget` asks (see `selector.budgets.confidence_names`).

    A place inside the model's folder is written relative to it in `lite.json`.
    """
    backbone: str | None = None
    """Folder or hub id of the backbone; None: the one the selector's `config.json` names."""
    revision: str | None = None
    """Hub revision of `backbone`."""
    backbone_digest: str | None = None
    """Of `backbone` when the model was written; None where the folder holds the backbone itself."""
    precision: str = "fp32"
    """Of the backbone, unless another one is asked for on loading."""
    sampling: str | None = None
    """Frames of a clip: `uniform` or `stride:N`; None: as in the store the selector learnt from."""
    calibration: dict[str, Any] | None = None
    """How the budget was found, and what it did there; for the reader only."""
    adaptive: bool = False
    """Whether the adaptive budget is what a call without a keep ratio gets."""
    measured: dict[str, Any] | None = None
    """What was measured when method and keep ratio were chosen; for the reader only."""
    license: str | None = None
    """Of the base model, as the hub names licences (`apache-2.0`, `cc-by-nc-4.0`); None: unknown.

    A checkpoint does not carry it. For the model's card only.
    """

    def __post_init__(self) -> None:
        num_kept(1, self.keep_ratio)
        name = parse_method(self.method)
        if LITE_SPREAD in (name.name, name.then and name.then.name):
            raise ConfigError(f"a model's method {self.method!r} is lite with a spread: give both")
        if self.budget is not None and not self.selects:
            raise ConfigError(
                f"an adaptive budget goes with method {LITE} alone, got {self.method!r}"
            )
        if self.adaptive and self.budget is None:
            raise ConfigError("a model that is adaptive unless told otherwise needs a budget")
        require_one_of("precision", self.precision, PRECISIONS)
        if not 0 <= self.spread < math.inf:
            raise ConfigError(f"spread must be at least 0 and finite, got {self.spread!r}")
        if self.sampling is not None:
            Sampling.parse(self.sampling)
        if self.license is not None and not re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", self.license):
            raise ConfigError(
                f"license must be a name of the hub's list, such as apache-2.0, got "
                f"{self.license!r}; other stands for what is not on it"
            )

    @property
    def selects(self) -> bool:
        """Whether the selector alone makes clips cheaper."""
        return self.method == LITE

    @property
    def drawn_as(self) -> str:
        """What pictures of kept tokens call the method."""
        sampled = self.selects and self.spread
        return self.method + f" (sampled by value, spread {self.spread:g})" * bool(sampled)

    @property
    def needs_selector(self) -> bool:
        """Whether the method ranks by the trained selector."""
        return parse_method(self.method).selected_by is not None

    @property
    def needs_confidence(self) -> bool:
        """Whether the adaptive budget asks a second model."""
        return isinstance(self.budget, ThresholdBudget)

    def adapts(self, keep_ratio: object, adaptive: bool | None) -> bool:
        """Whether a call with these arguments gets the adaptive budget."""
        return self.adaptive and keep_ratio is None if adaptive is None else adaptive

    def with_method(self, method: str) -> LiteConfig:
        """The same with another method, without what was calibrated for this one."""
        if method == self.method:
            return self
        return replace(self, method=method, **_UNCALIBRATED)

    def with_spread(self, spread: float) -> LiteConfig:
        """The same with another spread, without what was calibrated for this one."""
        if spread == self.spread:
            return self
        return replace(self, spread=spread, **_UNCALIBRATED)

    def backbone_of(self, selector: SelectorConfig | None) -> tuple[str, str | None]:
        """Name and hub revision of the backbone, where the folder does not hold it.

        Raises:
            ConfigError: nothing names it.
        """
        if self.backbone is not None:
            return self.backbone, self.revision
        if selector is None:
            raise ConfigError(f"the model's {LITE_NAME} names no backbone: say which it is")
        return selector.backbone, selector.revision

    def sampling_of(self, selector: SelectorConfig | None) -> str:
        """Frames of a clip: the configuration's own, else what the selector learnt from."""
        learnt = None if selector is None else selector.trained_on
        return self.sampling or (learnt.sampling if learnt is not None else "uniform")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        budget = budget_to_dict(self.budget) if self.budget is not None else None
        return {"schema_version": SCHEMA_VERSION} | vars(self) | {"budget": budget}

    def save(self, folder: Path) -> None:
        """Write `lite.json` into an existing folder, all of it or nothing."""
        values = self.to_dict() | {"confidence": to_stored(self.confidence, folder)}
        text = json.dumps(values, indent=2) + "\n"
        Root(folder).put(LITE_NAME, text.encode())

    @classmethod
    def load(cls, folder: Path) -> LiteConfig:
        """Read `lite.json`, or the defaults where there is none.

        Raises:
            ConfigError: the file is damaged or of another schema.
        """
        path = folder / LITE_NAME
        if not path.exists():
            return cls()
        try:
            values: dict[str, Any] = json.loads(path.read_text())
            version = values.pop("schema_version")
            if version == 1:
                raise ConfigError(
                    f"{path} has schema version 1, which cannot tell a sampling that was chosen "
                    "from one that nobody chose: remove the file, and calibrate again"
                )
            if version != SCHEMA_VERSION:
                raise ConfigError(
                    f"{path} has schema version {version}, this program reads {SCHEMA_VERSION}; "
                    "use the program that wrote it, or remove the file and calibrate again"
                )
            if values["budget"] is not None:
                values["budget"] = budget_from_dict(values["budget"])
            config = cls(**values)
            return replace(config, confidence=from_stored(config.confidence, folder))
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            if isinstance(error, ConfigError):
                raise
            raise ConfigError(f"{path} is not a model's configuration: {error!r}") from error
