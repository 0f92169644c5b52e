"""An evaluation's summary as text, narrow enough for a terminal."""

from __future__ import annotations

from itertools import groupby

from selector.evaluation.config import FULL
from selector.evaluation.report.summary import Summary
from selector.evaluation.report.table import TableRow
from selector.evaluation.report.text_adaptive import format_adaptive
from selector.evaluation.report.text_values import number, plain_span, span
from selector.statistics import FEW

_HEADER = (
    f"{'keep':>6} {'tokens':>6} {'GFLOPs':>7} {'alone':>7} {'clips/s':>7}  {'top-1 %':<18} "
    f"{'top-5 %':>7}  {'against full':<19} {'against random':<19}"
).rstrip()


def format_summary(summary: Summary) -> str:
    """The whole page."""
    parts = [_head(summary), _table(summary)]
    if len(summary.lite_methods) > 1:
        parts.append(_selectors(summary))
    if summary.adaptive or summary.out_of_reach:
        parts.append(format_adaptive(summary))
    if summary.classes:
        parts.append(_classes(summary))
    return "\n\n".join(parts)


def _head(summary: Summary) -> str:
    lines = [
        f"{summary.dataset}/{summary.split}, backbone {summary.backbone}, {summary.views} views: "
        f"{summary.num_videos} videos"
    ]
    if summary.num_failed:
        lines.append(
            f"left out: {summary.num_failed} videos that could not be evaluated under every method"
        )
    for method, count in summary.failed_by.items():
        lines.append(
            f"  {count} of them the full model did and {method} did not: for a table with them, "
            f"--table-only --without '{method}'"
        )
    if summary.without:
        lines.append(f"without {', '.join(summary.without)}, as asked")
    if summary.num_missing:
        lines.append(f"UNFINISHED: {summary.num_missing} videos are still missing")
    if summary.num_videos < FEW:
        lines.append(
            f"FEW VIDEOS: intervals of {summary.num_videos} are rough; nothing below stands on them"
        )
    lines.append(
        f"[a, b]: {summary.level:.0%} bootstrap intervals over videos. GFLOPs are multiply-"
        "accumulates of one\nview, alone: without what ranks the tokens; - : an oracle, which is "
        "no part of a model.\nclips/s: measured, one worker, without decoding."
    )
    return "\n".join(lines)


def _table(summary: Summary) -> str:
    adaptive = {setting.method for setting in summary.adaptive}
    against = _differences(summary, "random")
    fixed = [row for row in summary.table if row.method not in adaptive]
    lines = [_HEADER]
    for method, rows in groupby(fixed, key=lambda row: row.method):
        group = list(rows)
        seeds = len(group[0].top1_per_seed)
        lines.append(method + (f" (mean of {seeds} seeds)" if seeds > 1 else ""))
        lines += [_line(row, against.get((row.method, row.keep_ratio), "")) for row in group]
    return "\n".join(lines)


def _line(row: TableRow, against_random: str) -> str:
    full = row.method == FULL
    difference = (
        "" if full else span(row.difference, row.difference_low, row.difference_high, signed=True)
    )
    return (
        f"{row.keep_ratio:>6g} {row.num_kept:>6.0f} {number(row.gmacs):>7} "
        f"{number(row.gmacs_backbone):>7} {number(row.clips_per_s):>7}  "
        f"{span(row.top1, row.top1_low, row.top1_high):<18} {100 * row.top5:>7.1f}  "
        f"{difference:<19} {against_random}"
    ).rstrip()


def _selectors(summary: Summary) -> str:
    first, *others = summary.lite_methods
    found = _differences(summary, first)
    ratios = [ratio for method, ratio in found if method == others[0]]
    return "\n".join(
        [
            f"Top-1 against {first}, at the same keep ratio:",
            *(
                f"  {method} at {ratio:g}: {found[method, ratio]}"
                for method in others
                for ratio in ratios
            ),
        ]
    )


def _differences(summary: Summary, against: str) -> dict[tuple[str, float], str]:
    """(method, keep ratio) to the difference to another line, as text."""
    return {
        (pair.method, pair.keep_ratio): span(pair.difference, pair.low, pair.high, signed=True)
        for pair in summary.paired
        if pair.against == against
    }


def _classes(summary: Summary) -> str:
    first = summary.classes[0]
    lines = [
        f"Across {len(first.class_ids)} classes, top-1 lost at keep ratio {first.keep_ratio:g} "
        "against the full model's top-1\n(principle 5: easy classes lose less, so both below 0):"
    ]
    if summary.num_videos < FEW * len(first.class_ids):
        lines.append(
            f"  FEW VIDEOS: {summary.num_videos / len(first.class_ids):.0f} a class; with fewer "
            f"than {FEW} the intervals lie too high"
        )
    for trend in summary.classes:
        rank = plain_span(trend.spearman, trend.spearman_low, trend.spearman_high)
        slope = plain_span(trend.slope, trend.slope_low, trend.slope_high)
        lines.append(f"  Spearman {rank}  slope {slope}  {trend.method}")
    return "\n".join(lines)
