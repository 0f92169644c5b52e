"""What decides the results of an evaluation; fingerprinted, as a store's configuration is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from pipeline.config import DECODERS, INFORMATIVE, PRECISIONS, Fingerprinted
from pipeline.errors import ConfigError
from selector.keep import num_kept
from selector.rankers.spec import RankerSpec, parse_spec

FULL = "full"
"""The method name of the unreduced model, which every ranking becomes at keep ratio 1."""


class Condition(NamedTuple):
    """One thing done to every clip: one result row of it."""

    method: str
    """Canonical name of the ranking, or `FULL`."""
    seed: int
    """Seed of `random`; 0 for all others."""
    keep_ratio: float
    """Share of the tokens kept."""


@dataclass(frozen=True, kw_only=True)
class EvalConfig(Fingerprinted):
    """Everything that changes a byte of the results.

    Raises:
        ConfigError: a field is outside its range; the message names field and rule.
    """

    dataset: str
    """Name of the dataset specification."""
    plan_digest: str
    """SHA-256 over the plan."""
    split: str
    """Split of the dataset the plan lists."""
    backbone: str = field(metadata=INFORMATIVE)
    """The checkpoint as the user named it."""
    backbone_digest: str
    """SHA-256 over the checkpoint's weights and configuration."""
    revision: str | None = field(default=None, metadata=INFORMATIVE)
    """The hub revision asked for."""
    selector: str | None = field(default=None, metadata=INFORMATIVE)
    """Folder of the trained selector; None without method `lite`."""
    selector_digest: str | None = None
    """SHA-256 over the selector's files."""
    decoder: str = "pyav"
    """Decoder backend."""
    sampling: str = "uniform"
    """Frame sampling: `uniform` over the whole video, or `stride:N`."""
    num_segments: int = 1
    """Temporal views per video."""
    num_crops: int = 1
    """Spatial views per temporal view."""
    methods: tuple[str, ...]
    """Canonical names of the rankings, in the order of the table."""
    keep_ratios: tuple[float, ...]
    """Shares of the tokens kept, descending."""
    num_seeds: int = 3
    """Seeds 0, 1, ... of `random`."""
    precision: str = "fp32"
    """Precision of the backbone's forward pass."""
    shard_size: int = 64
    """Clips per shard, the unit of work and of commit."""

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("decoder", self.decoder, DECODERS),
            ("precision", self.precision, PRECISIONS),
        ):
            if value not in allowed:
                raise ConfigError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")
        for name in ("num_segments", "num_crops", "num_seeds", "shard_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)!r}")
        if not self.keep_ratios or list(self.keep_ratios) != sorted(
            set(self.keep_ratios), reverse=True
        ):
            raise ConfigError(f"keep_ratios must descend, each once, got {self.keep_ratios!r}")
        for ratio in self.keep_ratios:
            num_kept(1, ratio)
        if ("lite" in self.methods) != (self.selector_digest is not None):
            raise ConfigError("method lite and a selector go together: --selector DIR")

    @property
    def num_views(self) -> int:
        """Clips per video."""
        return self.num_segments * self.num_crops

    @property
    def specs(self) -> tuple[RankerSpec, ...]:
        """The rankings, parsed."""
        return tuple(parse_spec(name) for name in self.methods)

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """What is done to every clip, in row order: the full model first, always."""
        reduced = [ratio for ratio in self.keep_ratios if ratio < 1]
        return (
            Condition(FULL, 0, 1.0),
            *(
                Condition(method, seed, ratio)
                for method in self.methods
                for seed in range(self.num_seeds if method == "random" else 1)
                for ratio in reduced
            ),
        )


def parse_keep_ratios(text: str) -> tuple[float, ...]:
    """Reads `1,.9,.5`, in any order.

    Raises:
        ConfigError: no number, or one that is outside (0, 1] or not a number.
    """
    ratios = set()
    for part in text.split(","):
        try:
            ratio = float(part)
        except ValueError:
            raise ConfigError(
                f"keep ratios are numbers in (0, 1], got {part!r} in {text!r}"
            ) from None
        num_kept(1, ratio)
        ratios.add(ratio)
    return tuple(sorted(ratios, reverse=True))
