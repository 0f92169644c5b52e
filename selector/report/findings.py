"""Headline findings as sentences with their intervals; what cannot be said is said to be so."""

from __future__ import annotations

import math

import pandas as pd

from selector.analysis.store import RELATIVE, Analysis
from selector.evaluation.report.summary import Summary
from selector.report.places import Places


def of_store(analysis: Analysis, found: Places) -> list[str]:
    """How unequal tokens are, whether their tail is Pareto, classes, and the edge."""
    pooled = analysis.pooled
    said = [
        f"The best 10 % of the tokens hold {100 * pooled['top10_share']:.1f} % of the value "
        f"(Gini {pooled['gini']:.3f}; 0 = all equal, 1 = one has all)."
        if not math.isnan(pooled["gini"])
        else "No token has any value: every map is flat, and there is nothing to compare.",
        _tail(analysis.tails),
    ]
    trends = analysis.trends
    half = trends[trends["measure"] == "half_share"].to_dict("records")
    if half:
        row = half[0]
        said.append(
            f"Easier classes {_direction(row['low'], row['high'])} by the share of tokens with "
            f"half of the best or more: Spearman over {row['num_classes']} classes "
            f"{row['spearman']:+.2f} [{row['low']:+.2f}, {row['high']:+.2f}]."
        )
    else:
        said.append("Too few classes with a label, or too alike, to compare easy with hard ones.")
    if not math.isnan(found.edge_value):
        said.append(
            f"The outermost ring of tokens holds {100 * found.edge_value:.1f} % of the value; it "
            f"has {100 * found.edge_tokens:.1f} % of the tokens."
        )
    return said


def of_evaluation(summary: Summary) -> list[str]:
    """Every comparison with random that stands after Holm's correction, or that none does."""
    named = [d for d in summary.paired if d.against == "random" and d.keep_ratio is not None]
    said = [
        f"{d.method} at keep ratio {d.keep_ratio:g} is {abs(100 * d.difference):.1f} points "
        f"{'above' if d.difference > 0 else 'below'} random "
        f"[{100 * d.low:+.1f}, {100 * d.high:+.1f}]."
        for d in named
        if d.stands
    ]
    if not named:
        said.append("Nothing was compared with random: it was not evaluated.")
    elif not said:
        said.append(f"None of {len(named)} comparisons with random stands at 5 %.")
    elif len(said) < len(named):
        said.append(f"The other {len(named) - len(said)} comparisons with random do not stand.")
    return said


def _tail(tails: pd.DataFrame) -> str:
    within = tails[tails["values"] == RELATIVE] if len(tails) else tails
    if within.empty:
        return "There are too few positive values to fit a tail."
    row = within.iloc[0]
    low, high = row["shape_low"], row["shape_high"]
    if (within["shape_low"] > 0).all():
        kind = "heavier than exponential at every cut-off, as a Pareto tail is"
    elif (within["shape_high"] < 0).all():
        kind = "lighter than exponential at every cut-off, so no Pareto tail"
    else:
        kind = "not told apart from exponential at every cut-off"
    return (
        f"Within clips the tail is {kind}: shape "
        f"{row['shape']:+.3f} [{low:+.3f}, {high:+.3f}] over "
        f"the best {100 * row['share']:.3g} % of the positive values."
    )


def _direction(low: float, high: float) -> str:
    if high < 0:
        return "have thinner tails, as the paper says,"
    return "have thicker tails" if low > 0 else "have no clearly thinner or thicker tails"
