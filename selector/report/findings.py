"""Headline findings as sentences with their intervals; what cannot be said is said to be so."""

from __future__ import annotations

import math

from selector.analysis.places import Places
from selector.analysis.store import Analysis
from selector.budgets.levels import MIXTURE
from selector.evaluation.report.summary import Summary
from selector.report.words import interval

SAID_RATIOS = (0.5, 0.3)
"""Keep ratios of whose cost the headline speaks."""


def of_store(analysis: Analysis, found: Places) -> list[str]:
    """How unequal tokens are, and the edge."""
    shares = analysis.shares[
        analysis.shares["label"].isna() & (analysis.shares["over"] == "tokens")
    ]
    best, gini = (
        shares[shares["measure"] == name].to_dict("records")[0] for name in ("top10_share", "gini")
    )
    said = [
        f"The best 10 % of the tokens hold {100 * best['value']:.1f} % of the value "
        f"{interval(100 * best['low'], 100 * best['high'])}; Gini {gini['value']:.3f} "
        f"{interval(gini['low'], gini['high'], '.3f')} (0 = all equal, 1 = one has all)."
        if not math.isnan(gini["value"])
        else "No token has any value: every map is flat, and there is nothing to compare."
    ]
    if not math.isnan(found.edge_value):
        said.append(
            f"The outermost ring of tokens holds {100 * found.edge_value:.1f} % of the value; it "
            f"has {100 * found.edge_tokens:.1f} % of the tokens."
        )
    return said


def of_evaluation(summary: Summary) -> list[str]:
    """The best usable line of some budgets, and how many comparisons with random stand."""
    said = [f"{caution}." for caution in summary.cautions]
    for ratio in SAID_RATIOS:
        rows = [row for row in summary.table if row.keep_ratio == ratio and row.gmacs is not None]
        adaptive = {setting.method for setting in summary.adaptive}
        rows = [row for row in rows if row.method not in adaptive]
        if not rows:
            continue
        best = max(rows, key=lambda row: row.top1)
        low, high = 100 * best.difference_low, 100 * best.difference_high
        said.append(
            f"At the cost of keep ratio {ratio:g}, {best.method} is the most accurate of "
            f"{len(rows)} methods that see no label: {100 * best.top1:.1f} % "
            f"[{100 * best.top1_low:.1f}, {100 * best.top1_high:.1f}], "
            f"{100 * best.difference:+.1f} points [{low:+.1f}, {high:+.1f}] against all tokens"
            + (" (chosen on these same videos)." if len(rows) > 1 else ".")
        )
    named = [d for d in summary.paired if d.against == "random" and d.method != "full"]
    if not named:
        said.append("Nothing was compared with random: it was not evaluated.")
        return said
    above = sum(d.stands and d.difference > 0 for d in named)
    below = sum(d.stands and d.difference < 0 for d in named)
    said.append(
        f"Of {len(named)} comparisons with random at equal cost, {above} stand above it and "
        f"{below} below (5 %, Holm)."
    )
    return said


def of_adaptive(summary: Summary) -> list[str]:
    """Whether adapting the budget gains anything on fixed budgets of the same mean cost."""
    found = [d for d in summary.paired if d.against == MIXTURE]
    gains = [d for d in found if d.stands and d.difference > 0]
    loses = sum(d.stands and d.difference < 0 for d in found)
    if not found:
        return []
    if not gains:
        return [
            f"None of {len(found)} adaptive budgets is above a random mixture of fixed ones of its "
            f"cost; {loses} are below."
        ]
    best = max(gains, key=lambda d: d.difference)
    return [
        f"{len(gains)} of {len(found)} adaptive budgets are above a random mixture of fixed ones "
        f"of their cost, {loses} below; the most is {best.method} from {best.keep_ratio:g}: "
        f"{100 * best.difference:+.1f} points [{100 * best.low:+.1f}, {100 * best.high:+.1f}]."
    ]
