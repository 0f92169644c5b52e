"""What decides the results of an evaluation; fingerprinted, as a store's configuration is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pipeline.config import INFORMATIVE, ClipConfig, require_at_least
from pipeline.errors import ConfigError
from selector.methods.keep import KEEP_RATIOS, num_kept
from selector.methods.names import MethodName, require_selectors
from selector.methods.registry import parse_method

FULL = "full"
"""The method name of the unreduced model, which every method becomes at keep ratio 1."""


class Condition(NamedTuple):
    """One thing done to every clip: one result row of it."""

    method: str
    """Canonical name of the method, or `FULL`."""
    seed: int
    """Seed of `random`; 0 for all others."""
    keep_ratio: float | None
    """The budget: what keeping this share of the tokens costs; None where the content decides."""


@dataclass(frozen=True, kw_only=True)
class EvalConfig(ClipConfig):
    """Everything that changes a byte of the results.

    Raises:
        ConfigError: a field is outside its range; the message names field and rule.
    """

    selectors: Mapping[str, str] = field(default_factory=dict, metadata=INFORMATIVE)
    """`lite` or `lite[NAME]`, which `lite-spread` goes by too, to the trained selector's folder."""
    selector_digests: Mapping[str, str] = field(default_factory=dict)
    """Method to the SHA-256 over its selector's files."""
    learnt_from: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, metadata=INFORMATIVE)
    """`lite` or `lite[NAME]` to the fields of its selector's `TrainedOn`, where that is known."""
    methods: tuple[str, ...]
    """Canonical names of the methods, in the order of the table."""
    keep_ratios: tuple[float, ...] = (1.0, *KEEP_RATIOS)
    """Budgets, as the share of tokens kept that costs as much, descending."""
    gflops: tuple[float, ...] = ()
    """Budgets given as the cost of one view, whose shares of the tokens are in `keep_ratios`."""
    left_out: tuple[tuple[str, float], ...] = ()
    """Method and budget of what would be a condition, but for the method not getting so cheap."""
    num_seeds: int = 3
    """Seeds 0, 1, ... of `random`."""
    shard_size: int = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least("num_seeds", self.num_seeds, 1)
        if not self.keep_ratios or list(self.keep_ratios) != sorted(
            set(self.keep_ratios), reverse=True
        ):
            raise ConfigError(f"keep_ratios must descend, each once, got {self.keep_ratios!r}")
        for ratio in self.keep_ratios:
            num_kept(1, ratio)
        require_selectors(self.names, self.selectors or self.selector_digests)

    @property
    def names(self) -> tuple[MethodName, ...]:
        """The methods, parsed."""
        return tuple(parse_method(name) for name in self.methods)

    @property
    def lite_methods(self) -> tuple[str, ...]:
        """Those of the methods that rank by a trained selector and do nothing else."""
        return tuple(str(name) for name in self.names if name.predicts_values)

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """What is done to every clip, in row order: the full model first, always."""
        reduced = [ratio for ratio in self.keep_ratios if ratio < 1]
        return (
            Condition(FULL, 0, 1.0),
            *(
                Condition(str(name), seed, ratio)
                for name in self.names
                for seed in range(self.num_seeds if name.is_random else 1)
                for ratio in ((None,) if name.by_content else reduced)
                if (str(name), ratio) not in self.left_out
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


def parse_gflops(text: str) -> tuple[float, ...]:
    """Reads `80,40`, in any order.

    Raises:
        ConfigError: no number, or one that is not above 0.
    """
    found = set()
    for part in text.split(","):
        try:
            value = float(part)
        except ValueError:
            value = 0.0
        if not 0 < value < float("inf"):
            raise ConfigError(f"GFLOPs are numbers above 0, got {part!r} in {text!r}")
        found.add(value)
    return tuple(sorted(found, reverse=True))
