"""The adaptive budgets of an evaluation's summary as text."""

from __future__ import annotations

from itertools import groupby

from selector.budgets.adaptive import AdaptiveGoal, AdaptiveSetting
from selector.budgets.candidates import CASCADE, MASS
from selector.budgets.levels import COIN
from selector.evaluation.report.summary import Summary
from selector.evaluation.report.text_values import number, span

_HEADER = (
    f"{'base':>6} {'tokens':>6} {'GFLOPs':>7} {'less':>6}  {'top-1 %':<18} "
    f"{'against base':<19} {'against coin':<19}"
).rstrip()


def format_adaptive(summary: Summary) -> str:
    """All selectors' adaptive budgets, each beside its base and a fixed budget of its own cost."""
    lines = [
        f"Adaptive budgets, {_goal(summary.goal)}\nwhere they are picked: on one half of the "
        "videos, and judged on the other, both ways round.\nless: videos that get less than the "
        "base. coin: two neighbouring fixed budgets mixed by chance,\nat the same mean cost. What "
        "is above 0 there is what adapting gains.",
        _HEADER,
    ]
    for _, group in groupby(summary.adaptive, key=lambda setting: setting.method):
        settings = list(group)
        lines.append(_title(settings[0]))
        lines += [_line(summary, setting) for setting in settings]
    return "\n".join([*lines, *summary.out_of_reach])


def _goal(goal: AdaptiveGoal) -> str:
    if goal.gmacs_share is not None:
        return f"the most accurate of at most {100 * goal.gmacs_share:g} % of their base's GFLOPs"
    assert goal.max_loss is not None
    return f"the cheapest that lose at most {100 * goal.max_loss:g} points to their base"


def _title(setting: AdaptiveSetting) -> str:
    if setting.kind == MASS:
        how = "the fewest tokens that hold a share of the predicted scores"
    elif setting.kind == CASCADE:
        how = "the small budget's own confidence; only clips in between go on to the base"
    else:
        assert setting.confidence_ratio is not None
        how = f"small or base, by the confidence on the best {100 * setting.confidence_ratio:g} %"
    return f"{setting.method}: {how}"


def _line(summary: Summary, setting: AdaptiveSetting) -> str:
    key = (setting.method, setting.base_ratio)
    row = next(row for row in summary.table if (row.method, row.keep_ratio) == key)
    against = {
        pair.against: span(pair.difference, pair.low, pair.high, signed=True)
        for pair in summary.paired
        if (pair.method, pair.keep_ratio) == key
    }
    less = sum(share for ratio, share in setting.shares.items() if ratio < setting.base_ratio)
    return (
        f"{row.keep_ratio:>6g} {row.num_kept:>6.0f} {number(row.gmacs):>7} {100 * less:>4.0f} %  "
        f"{span(row.top1, row.top1_low, row.top1_high):<18} {against[setting.selector]:<19} "
        f"{against[COIN]}"
    )
