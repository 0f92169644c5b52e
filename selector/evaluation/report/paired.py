"""Differences of two lines of the table on the same videos, with intervals of their own.

A table makes dozens of comparisons, and one in twenty intervals misses 0 by chance. So each family
of them (all fixed budgets against one other method, all adaptive ones against their bases, against
their mixtures) is judged together, by Holm's rule.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from pipeline.errors import ConfigError
from selector.budgets.adaptive import AdaptiveResult
from selector.budgets.levels import mixture_at
from selector.evaluation.config import FULL
from selector.evaluation.report.table import Entry
from selector.methods.names import PRIOR_SPREAD
from selector.statistics import LEVEL, Groups, holm, mean_interval, paired_p_values

BEST = "best"
"""Asks for the comparison of every line with the best other one of its budget."""


class Pair(NamedTuple):
    """Two lines to compare, and the comparisons that are judged with them."""

    line: Entry
    other: Entry
    family: str


@dataclass(frozen=True, kw_only=True)
class PairedDifference:
    """Top-1 of one line minus another's on the same videos, with its interval."""

    method: str
    keep_ratio: float | None
    """None where the content decides; the other line is then, where it is not the full model, a
    mixture of its two neighbouring budgets at the same mean cost."""
    against: str
    """The other line's method, at the same keep ratio; `full` for the full model, `best` for the
    best other method, `random mixture` for a fixed budget of equal cost."""
    other: str
    """The other line's method, also where it was chosen as the best."""
    difference: float
    low: float
    high: float
    p_value: float
    """Two-sided, of no difference, after Holm's correction over its family."""

    @property
    def stands(self) -> bool:
        """Whether it differs from 0 with its whole family in mind."""
        return self.p_value < 1 - LEVEL


def others(asked: Sequence[str] | None, methods: Sequence[str]) -> tuple[str, ...]:
    """What the lines are compared with.

    Args:
        asked: names; None for the full model, `random`, and every `prior-spread`.
        methods: of the table.

    Raises:
        ConfigError: one is not in the table.
    """
    if asked is None:
        return (FULL, *(m for m in methods if m == "random" or m.startswith(PRIOR_SPREAD)))
    unknown = [name for name in asked if name not in (FULL, BEST, *methods)]
    if unknown or not asked:
        raise ConfigError(
            f"cannot compare with {', '.join(unknown) or 'nothing'}: the table has "
            f"{', '.join((FULL, *methods))}, and {BEST} is the best other method of each budget"
        )
    return tuple(dict.fromkeys(asked))


def pairs(
    fixed: Sequence[Entry],
    against: Sequence[str],
    lite_methods: Sequence[str],
    adaptive: Sequence[AdaptiveResult],
) -> list[Pair]:
    """Lines, and what each is compared with.

    Args:
        fixed: fixed budgets.
        against: methods that all of them are compared with.
        lite_methods: selectors; each is compared with the first, too.
        adaptive: each is compared with its base and with a random mixture of its cost.
    """
    found = {(line.method, line.keep_ratio): line for line in fixed}
    made = []
    for line in fixed:
        first = lite_methods[:1] if line.method in lite_methods else ()
        for name in dict.fromkeys([*against, *first]):
            other = _best(line, fixed) if name == BEST else _of_its_cost(line, name, fixed)
            if other is not None and name != line.method:
                made.append(Pair(line, other, name))
    for result in adaptive:
        base = found[result.setting.selector, result.entry.keep_ratio]
        made.append(Pair(result.entry, base, "adaptive against base"))
        made.append(Pair(result.entry, result.mixture, "adaptive against mixture"))
    return made


def _of_its_cost(line: Entry, name: str, fixed: Sequence[Entry]) -> Entry | None:
    """The line of another method that costs as much; None where there is none."""
    if name == FULL or line.keep_ratio is not None:
        at = 1.0 if name == FULL else line.keep_ratio
        return next((e for e in fixed if (e.method, e.keep_ratio) == (name, at)), None)
    gmacs = line.gmacs_of
    levels = [e for e in fixed if e.method in (name, FULL) and e.keep_ratio is not None]
    costs = np.array([e.gmacs_backbone if e.gmacs is None else e.gmacs for e in levels])
    if gmacs is None or len(levels) < 2 or not costs.min() <= gmacs.mean() <= costs.max():
        return None
    mixture = mixture_at(costs, gmacs)
    return Entry(
        method=name,
        keep_ratio=None,
        num_kept=float(mixture.between(np.array([e.num_kept for e in levels]))),
        gmacs=float(mixture.between(costs)),
        gmacs_backbone=float(mixture.between(np.array([e.gmacs_backbone for e in levels]))),
        clips_per_s=None,
        top1=mixture.expected(np.stack([e.top1.mean(axis=1) for e in levels], axis=1)),
        top5=mixture.expected(np.stack([e.top5.mean(axis=1) for e in levels], axis=1)),
    )


def _best(line: Entry, fixed: Sequence[Entry]) -> Entry | None:
    """The most accurate line of another method at this budget that saves something.

    That leaves out oracles, which are no part of a model, and what needs the full model to decide.
    """
    if line.method == FULL:
        return None
    full = next(e for e in fixed if e.method == FULL).gmacs_backbone
    names = dict.fromkeys(e.method for e in fixed if e.method not in (FULL, line.method))
    found = [_of_its_cost(line, name, fixed) for name in names if not name.startswith("oracle")]
    peers = [e for e in found if e is not None and e.gmacs is not None and e.gmacs < full]
    return max(peers, key=lambda peer: float(peer.top1.mean()), default=None)


def paired(
    chosen: Sequence[Pair], num_draws: int, seed: int, groups: Groups | None = None
) -> list[PairedDifference]:
    """The differences of all pairs, over the same resamples.

    Args:
        chosen: the pairs, all over the same V videos.
        num_draws: resamples.
        seed: of the resampling.
        groups: (V,) of the videos, which are resampled and tested by group then.
    """
    if not chosen:
        return []
    gaps = np.stack([a.top1.mean(axis=1) - b.top1.mean(axis=1) for a, b, _ in chosen], axis=1)
    low, high = mean_interval(gaps, (-1.0, 1.0), num_draws, seed, groups)
    p_values = paired_p_values(gaps, groups)
    families = np.array([pair.family for pair in chosen])
    for family in set(families.tolist()):
        p_values[families == family] = holm(p_values[families == family])
    return [
        PairedDifference(
            method=a.method,
            keep_ratio=a.keep_ratio,
            against=BEST if family == BEST else b.method,
            other=b.method,
            difference=float(gaps[:, i].mean()),
            low=float(low[i]),
            high=float(high[i]),
            p_value=float(p_values[i]),
        )
        for i, (a, b, family) in enumerate(chosen)
    ]
