"""The two configurations of a selector: how it is trained, and what it then is.

`TrainConfig` is what a training is asked for. `SelectorConfig` travels with the weights as
`config.json` and says where they come from: a selector is bound to the patch embeddings of one
checkpoint and refused for any other, is served the frames that its store sampled, and is not
calibrated on videos that it was trained on.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from pipeline.clips.grid import TokenGrid
from pipeline.config import require_at_least, require_one_of
from pipeline.errors import ConfigError

SCHEMA_VERSION = 2

DEFAULT_LAYERS = {"mlp": 3, "mlp4": 4, "mlp5": 5, "global": 2, "transformer": 1}
"""Architecture -> layers: fully connected ones, 3-D convolutions, or transformer blocks."""
ARCHS = tuple(DEFAULT_LAYERS)
LOSS, ACCURACY = "loss", "accuracy"
CRITERIA = (LOSS, ACCURACY)
"""What an epoch's selector is judged by on held-out clips; see `TrainConfig.select_by`."""
NEEDS_ALL_TOKENS = ("global",)
FIXED_LAYERS = ("mlp4", "mlp5")
"""Architectures whose number of layers is not asked for."""


class BackboneIdentity(Protocol):
    """What of a backbone decides whether a selector fits it."""

    digest: str
    grid: TokenGrid
    hidden_size: int


@dataclass(frozen=True, kw_only=True)
class TrainedOn:
    """The clips that a selector learnt from, as the configuration of its store has them."""

    dataset: str
    """Name of the dataset specification."""
    split: str
    """Split of the dataset."""
    plan_digest: str
    """SHA-256 over the store's plan: video ids, labels, paths, views, groups."""
    sampling: str
    """Frames of a clip: `uniform` or `stride:N`."""
    num_segments: int
    """Temporal views per video."""
    num_crops: int
    """Spatial views per temporal view."""
    held_out: float
    """Share of the videos never trained on; see `selector.training.split.is_held_out`."""
    by_group: bool = False
    """Whether whole groups of videos were held out, as the store had groups."""


@dataclass(frozen=True, kw_only=True)
class ScoresFrom:
    """The store of another backbone that a selector's scores came from."""

    backbone: str
    """That store's checkpoint as its user named it; for the reader only."""
    backbone_digest: str
    """SHA-256 of that checkpoint."""
    revision: str | None
    """Hub revision of `backbone`."""
    store_fingerprint: str
    """Fingerprint of that store."""
    oracle: str
    """The oracle's name there."""


@dataclass(frozen=True, kw_only=True)
class SelectorConfig:
    """The selector's shape and where it comes from.

    Raises:
        ConfigError: a field is outside its range.
    """

    arch: str = "mlp"
    """One of `ARCHS`."""
    num_layers: int
    """Fully connected layers, convolutions (`global`) or blocks (`transformer`)."""
    width: int
    """Channels of the selector's hidden layers."""
    hidden_size: int
    """Channels of the backbone's patch embeddings."""
    grid: TokenGrid
    """Token grid of one clip."""
    backbone: str
    """The checkpoint as its user named it; for the reader only."""
    backbone_digest: str
    """SHA-256 of the checkpoint, which decides whether the selector fits."""
    revision: str | None = None
    """Hub revision of `backbone` that the store was built with."""
    store_fingerprint: str
    """Fingerprint of the store it was trained on."""
    oracle: str
    """How the scores were made: method, layer and target."""
    clean: tuple[str, ...] = ()
    """Cleaning steps of the training target."""
    trained_on: TrainedOn | None = None
    """None: weights that no store trained."""
    chosen_by: str | None = None
    """What chose among the epochs, such as `accuracy at 0.3`; None: the held-out loss."""
    scores_from: ScoresFrom | None = None
    """Where the scores came from, if not from the store that it was trained on."""

    def __post_init__(self) -> None:
        if self.arch not in ARCHS:
            raise ConfigError(f"arch must be one of {', '.join(ARCHS)}, got {self.arch!r}")
        if self.num_layers < 1 or self.width < 1:
            raise ConfigError(
                f"layers and width must be at least 1, got {self.num_layers} and {self.width}"
            )

    def check_fits(self, backbone: BackboneIdentity) -> None:
        """Refuses a backbone other than the one the selector was trained for.

        Raises:
            ConfigError: lists the fields that differ.
        """
        pairs = {
            "backbone_digest": (self.backbone_digest[:12], backbone.digest[:12]),
            "hidden_size": (self.hidden_size, backbone.hidden_size),
            "token_grid": (tuple(self.grid), tuple(backbone.grid)),
        }
        differing = [f"{k} {a} -> {b}" for k, (a, b) in pairs.items() if a != b]
        if differing:
            raise ConfigError(
                f"the selector was trained for another backbone ({self.backbone}): "
                f"{', '.join(differing)}; use that backbone, or train a selector for this one "
                "with `lite-pipeline train-selector` on a store it built"
            )

    def to_json(self) -> str:
        """The content of `config.json`."""
        fields = asdict(self) | {"grid": list(self.grid), "clean": list(self.clean)}
        if self.chosen_by is None:
            del fields["chosen_by"]  # the text of an older selector, and so its digest, stays
        if self.scores_from is None:
            del fields["scores_from"]
        if self.trained_on is not None and not self.trained_on.by_group:
            del fields["trained_on"]["by_group"]
        return json.dumps({"schema_version": SCHEMA_VERSION} | fields, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str, where: str) -> SelectorConfig:
        """Reads `config.json`; `where` names the file in errors.

        Raises:
            ConfigError: the text is no selector's configuration, or one of another schema.
        """
        try:
            fields: dict[str, Any] = json.loads(text)
            version = fields.pop("schema_version")
            if version == 1:
                raise ConfigError(
                    f"{where} has schema version 1, which does not say which dataset, split, "
                    "frames and views the selector was trained on, nor which videos were held "
                    "out. Run the `lite-pipeline train-selector` command that made it once more: "
                    "where the training is finished, that only adds what is missing"
                )
            if version != SCHEMA_VERSION:
                raise ConfigError(
                    f"{where} has schema version {version}, this program reads {SCHEMA_VERSION}; "
                    "train the selector again or use the program that wrote it"
                )
            fields |= {"grid": TokenGrid(*fields["grid"]), "clean": tuple(fields["clean"])}
            if fields["trained_on"] is not None:
                fields["trained_on"] = TrainedOn(**fields["trained_on"])
            if "scores_from" in fields:
                fields["scores_from"] = ScoresFrom(**fields["scores_from"])
            return cls(**fields)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            if isinstance(error, ConfigError):
                raise
            raise ConfigError(f"{where} is not a selector's configuration: {error!r}") from error


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Everything of the training that changes the selector.

    Raises:
        ConfigError: a field is outside its range.
    """

    arch: str = "mlp"
    """One of `ARCHS`."""
    num_layers: int | None = None
    """Fully connected layers, convolutions or blocks; None: the architecture's own."""
    width: int | None = None
    """Hidden channels; None takes a third of the embedding's (see `default_width`)."""
    clean: tuple[str, ...] = ()
    """Cleaning steps of the target, in their order."""
    epochs: int = 20
    """Passes over the training clips at most."""
    patience: int = 4
    """Epochs without a better one before stopping; see `select_by`."""
    learning_rate: float = 3e-3
    """Peak of the cosine schedule."""
    weight_decay: float = 0.01
    """AdamW's decoupled decay."""
    batch_tokens: int = 8192
    """Tokens per step, rounded down to whole clips."""
    held_out: float = 0.1
    """Share of the videos that is never trained on."""
    select_by: str = LOSS
    """What chooses the epoch: the held-out `loss`, or the `accuracy` of the backbone on held-out
    clips with the selector's tokens (the loss decides between equals)."""
    select_ratio: float = 0.3
    """Keep ratio of that accuracy."""
    seed: int = 0
    """Of initial weights and of the shuffling."""

    def __post_init__(self) -> None:
        if self.arch not in ARCHS:
            raise ConfigError(f"arch must be one of {', '.join(ARCHS)}, got {self.arch!r}")
        if self.arch in FIXED_LAYERS and self.num_layers is not None:
            raise ConfigError(f"{self.arch} fixes the layers; use --arch mlp with --layers N")
        for name in ("epochs", "patience", "batch_tokens"):
            require_at_least(name, getattr(self, name), 1)
        for name in ("width", "num_layers"):
            if getattr(self, name) is not None:
                require_at_least(name, getattr(self, name), 1)
        require_at_least("seed", self.seed, 0)
        require_one_of("select_by", self.select_by, CRITERIA)
        if not 0 < self.select_ratio < 1:
            raise ConfigError(f"select_ratio must lie in (0, 1), got {self.select_ratio!r}")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise ConfigError(f"learning_rate must be above 0, got {self.learning_rate!r}")

    def identity(self) -> dict[str, Any]:
        """What of it decides the outcome, as plain JSON values."""
        fields = asdict(self)
        if self.select_by == LOSS:  # a folder that an older release began is still this training's
            del fields["select_by"], fields["select_ratio"]
        return fields


def default_width(hidden_size: int) -> int:
    """Hidden channels of a selector unless asked otherwise: a third of the embedding's.

    The paper does not tell. For VideoMAE-B this is 256: 0.41 GMACs for all tokens, 0.2 % of the
    full model. Added to the closed form of the cost it gives the paper's GFLOPs to the digit at
    every keep ratio (181, 159, 118, 80, 46), which half or a quarter do not.
    """
    return max(8, hidden_size // 3)
