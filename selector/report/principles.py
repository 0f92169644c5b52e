"""The paper's five principles, each judged by the rows at hand, and said in words.

A rule decides, the same for every dataset, and what does not hold is said to be so. Where an
interval leaves both open nothing is said: too few videos are no evidence for or against.
Comparisons are those of the evaluation's table: on the same videos, and judged together by Holm's
rule.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import pandas as pd

from selector.analysis.store import RELATIVE, Analysis
from selector.evaluation.config import FULL
from selector.evaluation.report.classes import ClassTrend
from selector.evaluation.report.paired import PairedDifference
from selector.evaluation.report.summary import Summary
from selector.methods.names import ORACLE_SECOND, MethodName
from selector.methods.registry import parse_method
from selector.report.words import interval
from selector.statistics import FEW

HOLDS, IN_PART, FAILS, OPEN = "holds", "holds in part", "does not hold", "cannot be said"

CUES = ("attention", "motion", "motion-pixels", "motion-vectors", "saliency")
"""Methods that rank tokens by what an eye, or the model's attention, is drawn to."""

MOST_VALUE = 0.5
"""Share of the value that the best tenth of a clip's tokens must hold to be a vital few."""

LEVEL = 0.05
"""Share of the videos that a difference must surely stay below to count as level."""

_NAMED = 5  # methods that a sentence lists


@dataclass(frozen=True)
class Verdict:
    """What the rows say of one principle.

    Attributes:
        number: of the principle in the paper.
        claim: the principle.
        verdict: one of `HOLDS`, `IN_PART`, `FAILS`, `OPEN`.
        because: sentences with numbers, or what is missing and how to get it.
    """

    number: int
    claim: str
    verdict: str
    because: tuple[str, ...]


def verdicts(analysis: Analysis | None, summary: Summary | None) -> list[Verdict]:
    """All five, in order.

    Args:
        analysis: of the store; None where no clip has a map.
        summary: of an evaluation; None where there is none.
    """
    return [
        random_is_hard_to_beat(summary),
        cues_do_not_help(summary),
        dropping_helps(summary),
        few_tokens_hold_most(analysis),
        easy_needs_less(analysis, summary),
    ]


def random_is_hard_to_beat(summary: Summary | None) -> Verdict:
    """Principle 1, against methods that see no label and were not trained on an oracle.

    It holds where none of them stands above random at any budget, nor could be above it by more
    than `LEVEL`; it fails where more than half of all comparisons stand above.
    """
    claim = "Random selection is better than most methods"
    found = _against(summary, "random", _is_rival)
    if not found:
        return Verdict(1, claim, OPEN, (_missing("random,uniform,attention,motion,tome"),))
    above = [pair for pair in found if pair.stands and pair.difference > 0]
    below = [pair for pair in found if pair.stands and pair.difference < 0]
    unsure = _unsure(found)
    verdict = FAILS if len(above) > len(found) / 2 else IN_PART if above else HOLDS
    if verdict == HOLDS and unsure:
        verdict = OPEN
    number = len({pair.method for pair in found})
    said = [
        f"{_times(len(found), 'comparison')} of {_times(number, 'method')} with random at equal "
        f"cost: {len(above)} above it, {len(below)} below, {len(found) - len(above) - len(below)} "
        "not told apart. Trained selectors and oracles are left out."
    ]
    if above:
        said.append(f"Above random: {_best_of_each(above)}.")
    elif unsure:
        said.append(_too_wide(unsure))
    return Verdict(1, claim, verdict, tuple(said))


def cues_do_not_help(summary: Summary | None) -> Verdict:
    """Principle 2: it holds where no cue is, or may well be, above random; fails where all are."""
    claim = "Good tokens do not coincide with visual cues"
    found = _against(summary, "random", _is_cue)
    if not found:
        return Verdict(2, claim, OPEN, (_missing("random,attention,motion,saliency"),))
    said, better = [], 0
    names = list(dict.fromkeys(pair.method for pair in found))
    for name in names:
        own = [pair for pair in found if pair.method == name]
        above = [pair for pair in own if pair.stands and pair.difference > 0]
        below = [pair for pair in own if pair.stands and pair.difference < 0]
        better += bool(above)
        if above:
            said.append(f"{name} is above random: {_where(above)}.")
        if below:
            said.append(f"{name} is below random: {_where(below)}.")
        if not above and not below:
            said.append(f"{name} is not told apart from random at any of {len(own)} budgets.")
    verdict = HOLDS if not better else FAILS if better == len(names) else IN_PART
    if verdict == HOLDS and _unsure(found):
        verdict = OPEN
        said.append(_too_wide(_unsure(found)))
    return Verdict(2, claim, verdict, tuple(said))


def dropping_helps(summary: Summary | None) -> Verdict:
    """Principle 3: it holds where fewer tokens beat all of them with and without the label.

    It fails where all budgets are surely below all tokens. Maps of the label steer the answer, so
    what they alone gain shows it in part only.
    """
    claim = "Low-value tokens can hurt recognition"
    methods = "oracle,oracle-predicted,oracle-second"
    found = _against(summary, FULL, _is("oracle"))
    if summary is None or not found:
        return Verdict(3, claim, OPEN, (_missing(methods),))
    guessed = _against(summary, FULL, _is("oracle-predicted"))
    said = [_best_against_full("The oracle of the true label", found)]
    gains = _gains(found)
    if guessed:
        said.append(_best_against_full("The oracle of the predicted label", guessed))
    elif gains:
        said.append("Without the label it was not tried (oracle-predicted).")
    if gains:
        said.append(_steering(summary))
    if gains:
        verdict = HOLDS if _gains(guessed) else IN_PART
    else:
        verdict = OPEN if any(pair.high > 0 for pair in found) else FAILS
    return Verdict(3, claim, verdict, tuple(said))


def few_tokens_hold_most(analysis: Analysis | None) -> Verdict:
    """Principle 4: few tokens hold most of the value, and the tail is Pareto at every cut-off."""
    claim = "The value of tokens follows a Pareto distribution: few hold most of it"
    if analysis is None:
        return Verdict(4, claim, OPEN, ("No clip of the store has a map.",))
    shares = analysis.shares
    whole = shares[(shares["over"] == "videos") & shares["label"].isna()]
    found = whole[whole["measure"] == "top10_share"].to_dict("records")
    if not found:
        return Verdict(4, claim, OPEN, ("No token has any value: every map is flat.",))
    [share] = found
    said = [
        f"The best tenth of a video's tokens hold {100 * share['value']:.1f} % of its value "
        f"{interval(100 * share['low'], 100 * share['high'])} in the mean."
    ]
    vital = _surely(share["low"] > MOST_VALUE, share["high"] < MOST_VALUE)
    fits = analysis.tails
    rows = fits[fits["values"] == RELATIVE].to_dict("records") if len(fits) else []
    if not rows:
        said.append("There are too few positive values to fit a tail, so that part stays open.")
        return Verdict(4, claim, _both(vital, None), tuple(said))
    heavy = _surely(
        all(row["shape_low"] > 0 for row in rows), any(row["shape_high"] < 0 for row in rows)
    )
    kind = {
        True: "heavier than exponential at every cut-off, as a Pareto tail is",
        False: "lighter than exponential at some cut-off, so it is no Pareto tail",
        None: "not told apart from exponential at some cut-off, so it is no clear Pareto tail",
    }[heavy]
    shapes = ", ".join(
        f"{row['shape']:+.2f} {interval(row['shape_low'], row['shape_high'], '+.2f')} "
        f"(best {100 * row['share']:.2g} %)"
        for row in rows
    )
    said.append(f"Within clips the tail is {kind}; its shape (0: exponential) is {shapes}.")
    others = analysis.alternatives
    said += [
        f"A plain power law from its best cut-off fits {how} than "
        f"{', '.join(name.replace('_', ' ') for name in names)}."
        for how, names in _compared(others[others["values"] == RELATIVE]).items()
    ]
    return Verdict(4, claim, _both(vital, heavy), tuple(said))


def easy_needs_less(analysis: Analysis | None, summary: Summary | None) -> Verdict:
    """Principle 5: easier classes have thinner tails, and lose less under random selection."""
    claim = "Easy videos need less compute"
    said: list[str] = []
    tail = loss = None
    trends = None if analysis is None else analysis.trends
    rows = [] if trends is None else trends[trends["measure"] == "half_share"].to_dict("records")
    if rows:
        row = rows[0]
        tail = _surely(row["high"] < 0, row["low"] > 0)
        how = _direction(row["low"], row["high"], "fewer", "more", "neither clearly fewer nor more")
        said.append(
            f"Easier classes have {how} tokens of half the best value or more: Spearman over "
            f"{row['num_classes']} classes {row['spearman']:+.2f} "
            f"{interval(row['low'], row['high'], '+.2f')}."
        )
    else:
        said.append("The store has too few classes with a label, or too alike, to compare tails.")
    trend = _of_random(() if summary is None else summary.classes)
    if summary is None or trend is None:
        said.append(_missing("random") + " It takes three classes or more, and keep ratio 0.5.")
    else:
        loss = _surely(trend.spearman_high < 0, trend.spearman_low > 0)
        low, high = trend.spearman_low, trend.spearman_high
        how = _direction(low, high, "less", "more", "neither clearly less nor more")
        few = summary.num_videos / len(trend.class_ids)
        said.append(
            f"Easier classes lose {how} under random selection at keep ratio "
            f"{trend.keep_ratio:g}: Spearman over {len(trend.class_ids)} classes "
            f"{trend.spearman:+.2f} {interval(low, high, '+.2f')}."
            + (f" With only {few:.0f} videos a class it lies too high." if few < FEW else "")
        )
    return Verdict(5, claim, _both(tail, loss), tuple(said))


def _compared(alternatives: pd.DataFrame) -> dict[str, list[str]]:
    """How a power law fits within clips to what it is compared with."""
    found: dict[str, list[str]] = {}
    for row in alternatives.to_dict("records"):
        how = _direction(
            row["low"], row["high"], "worse", "better", "neither clearly better nor worse"
        )
        found.setdefault(how, []).append(str(row["alternative"]))
    return found


def _surely(yes: bool, no: bool) -> bool | None:
    """None where neither is sure."""
    return True if yes else False if no else None


def _both(first: bool | None, second: bool | None) -> str:
    """The verdict on a claim of two parts."""
    if first and second:
        return HOLDS
    if first or second:
        return IN_PART
    return OPEN if first is None and second is None else FAILS


def _unsure(found: Iterable[PairedDifference]) -> list[PairedDifference]:
    """Differences that do not stand, and could be above `LEVEL` all the same."""
    return [pair for pair in found if not pair.stands and pair.high > LEVEL]


def _too_wide(unsure: Sequence[PairedDifference]) -> str:
    return (
        f"The intervals are too wide to call them level: {len(unsure)} reach more than "
        f"{100 * LEVEL:g} points above random. More videos would tell."
    )


def _is_rival(name: MethodName) -> bool:
    trained = name.selected_by is not None
    return not (trained or name.is_random or name.name.startswith("oracle"))


def _is_cue(name: MethodName) -> bool:
    return name.name in CUES and name.then is None


def _is(wanted: str) -> Callable[[MethodName], bool]:
    return lambda name: name.name == wanted and name.then is None


def _against(
    summary: Summary | None, other: str, wanted: Callable[[MethodName], bool]
) -> list[PairedDifference]:
    """Fixed budgets compared with another method, of the methods that are wanted."""
    if summary is None:
        return []
    adaptive = {setting.method for setting in summary.adaptive}
    own = [p for p in summary.paired if p.against == other and p.method not in adaptive]
    return [pair for pair in own if pair.method != FULL and wanted(parse_method(pair.method))]


def _gains(found: Iterable[PairedDifference]) -> list[PairedDifference]:
    return [pair for pair in found if pair.stands and pair.difference > 0]


def _best_against_full(who: str, found: Sequence[PairedDifference]) -> str:
    gains = _gains(found)
    best = max(gains or found, key=lambda pair: pair.difference)
    at = f"{_points(best)} against all tokens, at keep ratio {best.keep_ratio:g}"
    if gains:
        return f"{who} gains with fewer tokens: {at}."
    return f"{who} nowhere stands above all tokens; its best is {at}."


def _steering(summary: Summary) -> str:
    """What a map of another class does, from the control at the largest keep ratio near half."""
    found = [s for s in summary.steering if parse_method(s.method).name == ORACLE_SECOND]
    if not found:
        return (
            "Part of the gain may be steering, as any class whose map is kept is predicted more "
            "often; its control, oracle-second, was not evaluated."
        )
    near = min(found, key=lambda s: abs(s.keep_ratio - 0.5))
    right, wrong = near.num_right[-1], near.num_second[-1]
    flipped = f"{100 * near.flipped[-1] / right:.0f} % of {right}" if right else "none of 0"
    mended = f"{100 * near.repaired[-1] / wrong:.0f} % of {wrong}" if wrong else "none of 0"
    return (
        f"Part of the gain is steering: at keep ratio {near.keep_ratio:g} the map of the second "
        f"class turns {flipped} right views to that class, and mends {mended} wrong ones whose "
        "label is second."
    )


def _of_random(trends: Iterable[ClassTrend]) -> ClassTrend | None:
    return next((trend for trend in trends if trend.method == "random"), None)


def _best_of_each(pairs: Sequence[PairedDifference]) -> str:
    """The best budget of each method, best method first."""
    best: dict[str, PairedDifference] = {}
    for pair in sorted(pairs, key=lambda pair: -pair.difference):
        best.setdefault(pair.method, pair)
    shown = [
        f"{name} (up to {_points(pair)}{_at(pair)})" for name, pair in list(best.items())[:_NAMED]
    ]
    more = len(best) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def _where(pairs: Sequence[PairedDifference]) -> str:
    """By how much at the budget where it is most, and at how many others."""
    most = max(pairs, key=lambda pair: abs(pair.difference))
    others = [f"{p.keep_ratio:g}" for p in pairs if p is not most and p.keep_ratio is not None]
    return f"{_points(most)}{_at(most)}" + (f", also at {', '.join(others)}" if others else "")


def _points(pair: PairedDifference) -> str:
    return f"{100 * pair.difference:+.1f} points [{100 * pair.low:+.1f}, {100 * pair.high:+.1f}]"


def _at(pair: PairedDifference) -> str:
    return "" if pair.keep_ratio is None else f" at {pair.keep_ratio:g}"


def _direction(low: float, high: float, below: str, above: str, neither: str) -> str:
    return below if high < 0 else above if low > 0 else neither


def _times(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _missing(methods: str) -> str:
    return (
        "The rows for it are missing: lite-pipeline evaluate --data-root DATA --out EVAL "
        f"--methods {methods}, and --eval EVAL here."
    )
