"""What a selector is, which store it learnt from and which backbone it belongs to.

`SelectorConfig` travels with the weights as `config.json`; a selector is bound to the patch
embeddings of one checkpoint and is refused for any other.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from pipeline.clips.grid import TokenGrid
from pipeline.errors import ConfigError

SCHEMA_VERSION = 1

DEFAULT_LAYERS = {"mlp": 3, "mlp4": 4, "mlp5": 5, "global": 2, "transformer": 1}
"""Architecture -> layers: fully connected ones, 3-D convolutions, or transformer blocks."""
ARCHS = tuple(DEFAULT_LAYERS)
NEEDS_ALL_TOKENS = ("global",)


class BackboneIdentity(Protocol):
    """What of a backbone decides whether a selector fits it."""

    digest: str
    grid: TokenGrid
    hidden_size: int


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
    store_fingerprint: str
    """Fingerprint of the store it was trained on."""
    oracle: str
    """How the store's scores were made: method, layer and target."""
    clean: tuple[str, ...] = ()
    """Cleaning steps of the training target."""

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
            if version != SCHEMA_VERSION:
                raise ConfigError(
                    f"{where} has schema version {version}, this program reads {SCHEMA_VERSION}; "
                    "train the selector again or use the program that wrote it"
                )
            fields |= {"grid": TokenGrid(*fields["grid"]), "clean": tuple(fields["clean"])}
            return cls(**fields)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            if isinstance(error, ConfigError):
                raise
            raise ConfigError(f"{where} is not a selector's configuration: {error!r}") from error
