"""What `evaluate` prints: accuracy against cost, adaptive budgets, and the trend over classes."""

from __future__ import annotations

import math
from itertools import groupby, pairwise
from typing import TYPE_CHECKING

from pipeline.cli import output
from pipeline.cli.table import Column, echo_table

if TYPE_CHECKING:
    from selector.budgets.adaptive import AdaptiveGoal, AdaptiveSetting
    from selector.evaluation.report.paired import PairedDifference
    from selector.evaluation.report.summary import Summary
    from selector.evaluation.report.table import TableRow

BRIEF_RATIOS = (1.0, 0.5, 0.3)
"""Keep ratios of the short table."""

_COLUMNS = (
    Column("keep", right=True),
    Column("tokens", right=True, spare=2),
    Column("GFLOPs", right=True),
    Column("alone", right=True, spare=4),
    Column("clips/s", right=True, spare=1),
    Column("top-1 %"),
    Column("top-5 %", right=True, spare=3),
)
_ADAPTIVE_COLUMNS = (
    Column("base", right=True),
    Column("tokens", right=True, spare=1),
    Column("GFLOPs", right=True),
    Column("less", right=True),
    Column("top-1 %"),
    Column("against base"),
    Column("against mixture"),
)


def echo_summary(summary: Summary) -> None:
    """The whole page."""
    _echo_head(summary)
    output.echo()
    _echo_accuracies(summary, summary.table)
    _echo_steering(summary)
    if len(summary.lite_methods) > 1:
        _echo_selectors(summary)
    if summary.adaptive or summary.out_of_reach:
        _echo_adaptive(summary)
    if summary.classes:
        _echo_classes(summary)


def echo_brief(summary: Summary) -> None:
    """The first table at few keep ratios, where it has them, and nothing else."""
    for caution in summary.cautions:
        output.note(caution)
    few = [row for row in summary.table if row.keep_ratio in (*BRIEF_RATIOS, None)]
    some = any(row.keep_ratio != 1 for row in few)
    _echo_accuracies(summary, few if some else summary.table)


def echo_published(summary: Summary, which: int) -> None:
    """A table of the paper, with ours beside it."""
    from selector.evaluation.report.published import PUBLISHED, beside

    output.echo()
    output.echo_prose(
        f"Table {which} of Principles of Visual Tokens (ICCV 2025), {PUBLISHED[which][0]}; ours, "
        f"on {summary.dataset}/{summary.split} with backbone {summary.backbone}, {summary.views} "
        f"views, {summary.num_videos} videos:"
    )
    lines = []
    for line, ours in beside(which, summary.table):
        numbers = [""] * 4
        if ours is not None:
            top1 = span(ours.top1, ours.top1_low, ours.top1_high)
            numbers = [ours.method, number(ours.gmacs_backbone), top1, f"{100 * ours.top5:.1f}"]
        top5 = "-" if line.top5 is None else f"{line.top5:.2f}"
        lines.append(
            [line.model, f"{line.gflops:g}", line.views, f"{line.top1:.2f}", top5, *numbers]
        )
    columns = [
        Column("model"),
        *(Column(title, right=True) for title in ("GFLOPs", "views", "top-1 %", "top-5 %")),
        Column("ours", spare=1),
        Column("GFLOPs", right=True),
        Column("top-1 %"),
        Column("top-5 %", right=True, spare=2),
    ]
    echo_table(columns, lines, gap=1)


def _echo_head(summary: Summary) -> None:
    from selector.statistics import FEW

    output.echo(
        f"{summary.dataset}/{summary.split}, backbone {summary.backbone}, {summary.views} views: "
        f"{summary.num_videos} videos"
    )
    if summary.num_failed:
        output.echo(
            f"left out: {summary.num_failed} videos that could not be evaluated under every method"
        )
    for method, count in summary.failed_by.items():
        output.echo_prose(
            f"{count} of them the full model did and {method} did not: for a table with them, "
            f"--table-only --without '{method}'",
            indent="  ",
        )
    if summary.num_padded:
        output.echo_prose(
            f"SHORT: {summary.num_padded} of these videos have fewer frames than a clip, which "
            "repeats some; how long a video is may give its class away"
        )
    if summary.without:
        output.echo(f"without {', '.join(summary.without)}, as asked")
    for caution in summary.cautions:
        output.echo_prose(caution)
    if summary.num_units < FEW:
        what = "VIDEOS" if summary.num_groups is None else "GROUPS"
        output.echo_prose(
            f"FEW {what}: intervals of {summary.num_units} are rough; nothing below stands on them"
        )
    output.echo_prose(
        f"[a, b]: {summary.level:.0%} bootstrap intervals over {summary.over}. GFLOPs: "
        "multiply-accumulates of one view, with all that decides which tokens stay; alone: "
        "without that; - : an oracle,"
        " which is no part of a model. clips/s: measured, one worker, without decoding. *: a "
        "difference that stands at 5 % when all of its column are judged together (Holm)."
    )


def _echo_accuracies(summary: Summary, table: list[TableRow]) -> None:
    adaptive = {setting.method for setting in summary.adaptive}
    differences = [_differences(summary, other) for other in summary.against]
    fixed = [row for row in table if row.method not in adaptive]
    lines: list[str | list[str]] = []
    for method, group in groupby(fixed, key=lambda row: row.method):
        rows = list(group)
        seeds = len(rows[0].top1_per_seed)
        grey = summary.thresholds.get(method)
        how = "" if grey is None else f" (above {grey:.1f} grey levels, means over the videos)"
        lines.append(method + (f" (mean of {seeds} seeds)" if seeds > 1 else how))
        for row in rows:
            lines.append(
                [
                    "-" if row.keep_ratio is None else f"{row.keep_ratio:.3g}",
                    f"{row.num_kept:.0f}",
                    number(row.gmacs),
                    number(row.gmacs_backbone),
                    number(row.clips_per_s),
                    span(row.top1, row.top1_low, row.top1_high),
                    f"{100 * row.top5:.1f}",
                    *(found.get((method, row.keep_ratio), "") for found in differences),
                ]
            )
    against = [
        # The first two are always shown.
        Column(f"against {other}", spare=5 if place > 1 else 0)
        for place, other in enumerate(summary.against)
    ]
    echo_table([*_COLUMNS, *against], lines, gap=1)


def _echo_steering(summary: Summary) -> None:
    """Every oracle's gain beside what maps of other classes do."""
    from selector.evaluation.report.steering import GAPS

    methods = list(dict.fromkeys(row.method for row in summary.table))
    for oracle in (m for m in methods if m.startswith("oracle[") and "+" not in m):
        control = oracle.replace("oracle[", "oracle-second[")
        if control not in methods:
            output.echo_prose(
                f"{oracle}: part of its gain is steering, any class whose map is kept is predicted "
                f"more often; evaluate {control} too to see how large"
            )
    if not summary.steering:
        return
    output.echo()
    output.echo_prose(
        "Steering, by how far the full model's first logit is above its second: views it has right "
        "that a map of another class flips to that class / views it has wrong whose label is "
        "second that the map repairs, % (of how many). gain: of the oracle, against full."
    )
    gains = {
        (row.method, row.keep_ratio): span(
            row.difference, row.difference_low, row.difference_high, signed=True
        )
        for row in summary.table
    }
    bounds = [f"{low:g}-{high:g}" for low, high in pairwise(GAPS[:-1])]
    titles = [*bounds, f"above {GAPS[-2]:g}", "all", "gain"]
    lines: list[str | list[str]] = []
    for method, group in groupby(summary.steering, key=lambda found: found.method):
        lines.append(method)
        oracle = "oracle[" + method.partition("[")[2]
        for found in group:
            counted = zip(
                found.flipped, found.num_right, found.repaired, found.num_second, strict=True
            )
            cells = [f"{_share(a, b)} / {_share(c, d)}" for a, b, c, d in counted]
            gain = gains.get((oracle, found.keep_ratio), "")
            lines.append([f"{found.keep_ratio:g}", *cells, gain])
    columns = [Column(title, spare=1 if title in bounds else 0) for title in titles]
    echo_table([Column("keep", right=True), *columns], lines, gap=2)


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.0f} ({whole})" if whole else "-"


def _echo_selectors(summary: Summary) -> None:
    first, *others = summary.lite_methods
    found = _differences(summary, first)
    rows = [
        (method, f"{ratio:g}", gap) for (method, ratio), gap in found.items() if method in others
    ]
    output.echo()
    output.echo(f"Top-1 against {first}, at the same keep ratio:")
    columns = (Column("method"), Column("keep", right=True), Column(f"against {first}"))
    echo_table(columns, rows, indent=2)


def _differences(summary: Summary, against: str) -> dict[tuple[str, float | None], str]:
    """(method, keep ratio) to the difference to another line, as text."""
    return {
        (pair.method, pair.keep_ratio): _difference(pair)
        for pair in summary.paired
        if pair.against == against
    }


def _difference(pair: PairedDifference) -> str:
    """With a star where it stands."""
    text = span(pair.difference, pair.low, pair.high, signed=True)
    return text + ("*" if pair.stands else "")


def _echo_adaptive(summary: Summary) -> None:
    """All selectors' adaptive budgets, each beside its base and a fixed budget of its own cost."""
    output.echo()
    output.echo_prose(
        f"Adaptive budgets, {_goal(summary.goal)} where they are picked: on one half of the videos,"
        " and judged on the other, both ways round. less: videos that get less than the base. "
        "mixture: two neighbouring fixed budgets mixed by chance, at the same mean cost; what is "
        "above 0 there is what adapting gains."
    )
    lines: list[str | list[str]] = []
    for _, group in groupby(summary.adaptive, key=lambda setting: setting.method):
        settings = list(group)
        lines.append(_adaptive_title(settings[0]))
        lines += [_adaptive_cells(summary, setting) for setting in settings]
    if lines:
        echo_table(_ADAPTIVE_COLUMNS, lines, gap=1)
    for sentence in summary.out_of_reach:
        output.echo_prose(sentence, indent="  ")


def _goal(goal: AdaptiveGoal) -> str:
    if goal.gmacs_share is not None:
        return f"the most accurate of at most {100 * goal.gmacs_share:g} % of their base's GFLOPs"
    assert goal.max_loss is not None
    return f"the cheapest that lose at most {100 * goal.max_loss:g} points to their base"


def _adaptive_title(setting: AdaptiveSetting) -> str:
    from selector.budgets.candidates import CASCADE, MASS

    if setting.kind == MASS:
        how = "the fewest tokens that hold a share of the predicted scores"
    elif setting.kind == CASCADE:
        how = "by the small budget's own confidence"
    else:
        assert setting.confidence_ratio is not None
        how = f"by the confidence on the best {100 * setting.confidence_ratio:g} %"
    return f"{setting.method}: {how}"


def _adaptive_cells(summary: Summary, setting: AdaptiveSetting) -> list[str]:
    from selector.budgets.levels import MIXTURE

    key = (setting.method, setting.base_ratio)
    row = next(row for row in summary.table if (row.method, row.keep_ratio) == key)
    against = {
        pair.against: _difference(pair)
        for pair in summary.paired
        if (pair.method, pair.keep_ratio) == key
    }
    less = sum(share for ratio, share in setting.shares.items() if ratio < setting.base_ratio)
    return [
        f"{row.keep_ratio:g}",
        f"{row.num_kept:.0f}",
        number(row.gmacs),
        f"{100 * less:.0f} %",
        span(row.top1, row.top1_low, row.top1_high),
        against[setting.selector],
        against[MIXTURE],
    ]


def _echo_classes(summary: Summary) -> None:
    from selector.statistics import FEW

    first = summary.classes[0]
    per_class = summary.num_videos / len(first.class_ids)
    output.echo()
    output.echo_prose(
        f"Across {len(first.class_ids)} classes, top-1 lost at keep ratio {first.keep_ratio:g} "
        "against the full model's top-1 (principle 5: easy classes lose less, so both below 0):"
    )
    if per_class < FEW:
        output.echo_prose(
            f"FEW VIDEOS: {per_class:.0f} a class; with fewer than {FEW} the intervals lie too high"
        )
    rows = [
        (
            plain_span(trend.spearman, trend.spearman_low, trend.spearman_high),
            plain_span(trend.slope, trend.slope_low, trend.slope_high),
            trend.method,
        )
        for trend in summary.classes
    ]
    echo_table([*map(Column, ("Spearman", "slope", "method"))], rows, indent=2)


def span(value: float, low: float, high: float, *, signed: bool = False) -> str:
    """A share and its interval in percent, or a difference in points."""
    sign = "+" if signed else ""
    return f"{100 * value:{sign}.1f} [{100 * low:{sign}.1f}, {100 * high:{sign}.1f}]"


def plain_span(value: float, low: float, high: float) -> str:
    """A statistic with its interval, or without where resampling told nothing."""
    known = f"[{low:+.2f}, {high:+.2f}]" if math.isfinite(low) else "[unknown]"
    return f"{value:+.2f} {known}"


def number(value: float | None) -> str:
    """Four significant digits; - for what there is not."""
    return "-" if value is None else f"{value:.4g}"
