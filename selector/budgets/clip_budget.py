"""How many tokens a clip deserves: the paper's adaptive rule (LITE++), and a budget by mass.

Both are pure arithmetic on tensors. What measures the confidence is `selector.budgets.confidence`,
what picks the thresholds `selector.budgets.pick`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from pipeline.errors import ConfigError
from selector.methods.keep import num_kept

LEVELS = (0.1, 0.2, 0.3, 0.5, 0.7, 0.9)
"""Keep ratios a mass budget is rounded up to: few, so that clips of a batch form groups."""


def small_ratio(base_ratio: float) -> float:
    """The paper's small budget: 30 % of the tokens, or 20 % where the base keeps 30 % (Sec. 5)."""
    return 0.3 if base_ratio > 0.3 else 0.2


@dataclass(frozen=True, kw_only=True)
class ThresholdBudget:
    """The paper's LITE++: easy and hopeless clips get few tokens, the others the base budget.

    Raises:
        ConfigError: a keep ratio outside (0, 1], small not below base, or alpha above beta.
    """

    kind: ClassVar[str] = "threshold"

    base_ratio: float
    """Keep ratio of the clips in between."""
    small_ratio: float
    """Keep ratio of the easy and the hopeless."""
    alpha: float
    """A confidence below it is hopeless."""
    beta: float
    """A confidence above it is easy."""

    def __post_init__(self) -> None:
        num_kept(1, self.base_ratio), num_kept(1, self.small_ratio)
        if not self.small_ratio < self.base_ratio:
            raise ConfigError(
                f"the small keep ratio ({self.small_ratio}) must be below the base ratio "
                f"({self.base_ratio})"
            )
        if not self.alpha <= self.beta:
            raise ConfigError(f"alpha ({self.alpha}) must not be above beta ({self.beta})")

    def counts(self, confidence: torch.Tensor, num_tokens: int) -> torch.Tensor:
        """Tokens each clip keeps.

        Args:
            confidence: (B,) in [0, 1]; NaN says nothing and gets the base budget.
            num_tokens: N, tokens of a clip.

        Returns:
            (B,) int64 of `num_kept(N, base_ratio)` or `num_kept(N, small_ratio)`.
        """
        is_small = (confidence < self.alpha) | (confidence > self.beta)
        base, small = (num_kept(num_tokens, r) for r in (self.base_ratio, self.small_ratio))
        return torch.where(is_small, small, base)


@dataclass(frozen=True, kw_only=True)
class MassBudget:
    """The fewest tokens that hold a given share of the clip's predicted oracle mass.

    Not in the paper. It needs no second model: a clip whose predicted value sits on few tokens
    keeps few. Counts are rounded up to `levels`, so the share is met wherever the largest allows.

    Raises:
        ConfigError: a share or a level outside (0, 1], or levels that do not ascend.
    """

    kind: ClassVar[str] = "mass"

    mass: float
    """Share of the summed predicted scores that the kept tokens must hold."""
    levels: tuple[float, ...] = LEVELS
    """Allowed keep ratios, ascending; the first and the last are the least and the most."""

    def __post_init__(self) -> None:
        if not 0 < self.mass <= 1:
            raise ConfigError(f"mass must lie in (0, 1], got {self.mass!r}")
        if not self.levels or list(self.levels) != sorted(set(self.levels)):
            raise ConfigError(f"levels must ascend and not be empty, got {self.levels!r}")
        for level in self.levels:
            num_kept(1, level)

    def counts(self, scores: torch.Tensor, ranking: torch.Tensor) -> torch.Tensor:
        """Tokens each clip keeps.

        Args:
            scores: (B, N) predicted scores, not negative.
            ranking: (B, N), the highest are kept first.

        Returns:
            (B,) int64, each one of the levels' counts.
        """
        allowed = torch.tensor(self.level_counts(scores.shape[1]), device=scores.device)
        return allowed[level_index(tokens_for_mass(scores, ranking, self.mass), allowed)]

    def level_counts(self, num_tokens: int) -> list[int]:
        """The number of tokens of each level, for clips of `num_tokens`."""
        return [num_kept(num_tokens, level) for level in self.levels]


Budget = ThresholdBudget | MassBudget


def tokens_for_mass(
    scores: torch.Tensor, ranking: torch.Tensor, mass: float | torch.Tensor
) -> torch.Tensor:
    """The fewest tokens of each clip, first in its ranking, that hold a share of its summed scores.

    Args:
        scores: (B, N), not negative.
        ranking: (B, N), the highest are kept first.
        mass: the share in (0, 1], or several of them as (M,).

    Returns:
        (B,) int64 in [1, N], or (B, M); 1 where all scores are 0.
    """
    shares = torch.as_tensor(mass, dtype=torch.float64, device=scores.device)
    held = _held(scores, ranking)
    # The last sum itself, and not a sum in another order: a share of 1 must be reachable.
    wanted = held[:, -1:] * shares.reshape(1, -1)
    counts = torch.searchsorted(held, wanted.contiguous()).add(1).clamp(max=scores.shape[1])
    return counts.reshape(len(scores), *shares.shape)


def mass_of_tokens(
    scores: torch.Tensor, ranking: torch.Tensor, counts: Sequence[int]
) -> torch.Tensor:
    """The share of each clip's summed scores that the first tokens of its ranking hold.

    Args:
        scores: (B, N), not negative.
        ranking: (B, N), the highest are kept first.
        counts: numbers of tokens in [1, N], (L,).

    Returns:
        (B, L) float64 in [0, 1]; 1 where all scores are 0.
    """
    held = _held(scores, ranking)
    whole, best = held[:, -1:], held[:, [count - 1 for count in counts]]
    return torch.where(whole > 0, best / whole, 1.0)


def _held(scores: torch.Tensor, ranking: torch.Tensor) -> torch.Tensor:
    """Summed scores of the first 1, 2, ... tokens of a ranking, (B, N) float64."""
    order = torch.sort(ranking, dim=1, descending=True, stable=True).indices
    return scores.to(torch.float64).gather(1, order).cumsum(dim=1)


def level_index(counts: torch.Tensor, allowed: torch.Tensor) -> torch.Tensor:
    """Index of the smallest of `allowed` (ascending) that is at least the count; else the last."""
    return torch.searchsorted(allowed, counts).clamp(max=len(allowed) - 1)


def budget_to_dict(budget: Budget) -> dict[str, Any]:
    """Plain JSON values, with the kind."""
    values = dict(vars(budget))
    return {"kind": budget.kind} | {
        k: list(v) if isinstance(v, tuple) else v for k, v in values.items()
    }


def budget_from_dict(values: dict[str, Any]) -> Budget:
    """The inverse of `budget_to_dict`.

    Raises:
        ConfigError: no such kind, or fields that it does not have.
    """
    fields = dict(values)
    kind = fields.pop("kind", None)
    try:
        if kind == ThresholdBudget.kind:
            return ThresholdBudget(**fields)
        if kind == MassBudget.kind:
            return MassBudget(**fields | {"levels": tuple(fields.get("levels", LEVELS))})
    except TypeError as error:
        raise ConfigError(f"not a {kind} budget: {values!r} ({error})") from error
    raise ConfigError(f"budget kind must be threshold or mass, got {kind!r}")
