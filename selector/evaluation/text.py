"""An evaluation's summary as text, narrow enough for a terminal."""

from __future__ import annotations

from itertools import groupby

from selector.evaluation.adaptive import METHOD as ADAPTIVE
from selector.evaluation.config import FULL
from selector.evaluation.summary import Summary
from selector.evaluation.table import TableRow

_HEADER = (
    f"{'keep':>6} {'tokens':>6} {'GFLOPs':>7} {'alone':>7} {'clips/s':>7}  {'top-1 %':<18} "
    f"{'top-5 %':>7}  {'against full':<19} {'against random':<19}"
).rstrip()


def format_summary(summary: Summary) -> str:
    """The whole page."""
    parts = [_head(summary), _table(summary)]
    if summary.adaptive:
        parts.append(_adaptive(summary))
    if summary.classes:
        parts.append(_classes(summary))
    return "\n\n".join(parts)


def _head(summary: Summary) -> str:
    lines = [
        f"{summary.dataset}/{summary.split}, backbone {summary.backbone}, {summary.views} views: "
        f"{summary.num_videos} videos"
    ]
    if summary.num_failed:
        lines.append(f"left out: {summary.num_failed} videos that could not be evaluated")
    if summary.num_missing:
        lines.append(f"UNFINISHED: {summary.num_missing} videos are still missing")
    lines.append(
        f"[a, b]: {summary.level:.0%} bootstrap intervals over videos. GFLOPs are multiply-"
        "accumulates of one\nview, alone: without what ranks the tokens; - : an oracle, which is "
        "no part of a model.\nclips/s: measured, one worker, without decoding."
    )
    return "\n".join(lines)


def _table(summary: Summary) -> str:
    against = {
        (pair.method, pair.keep_ratio): _span(pair.difference, pair.low, pair.high, signed=True)
        for pair in summary.paired
        if pair.against == "random"
    }
    lines = [_HEADER]
    for method, rows in groupby(summary.table, key=lambda row: row.method):
        group = list(rows)
        seeds = len(group[0].top1_per_seed)
        lines.append(method + (f" (mean of {seeds} seeds)" if seeds > 1 else ""))
        lines += [_line(row, against.get((row.method, row.keep_ratio), "")) for row in group]
    return "\n".join(lines)


def _line(row: TableRow, against_random: str) -> str:
    full = row.method == FULL
    difference = (
        "" if full else _span(row.difference, row.difference_low, row.difference_high, signed=True)
    )
    return (
        f"{row.keep_ratio:>6g} {row.num_kept:>6.0f} {_number(row.gmacs):>7} "
        f"{_number(row.gmacs_backbone):>7} {_number(row.clips_per_s):>7}  "
        f"{_span(row.top1, row.top1_low, row.top1_high):<18} {100 * row.top5:>7.1f}  "
        f"{difference:<19} {against_random}"
    ).rstrip()


def _adaptive(summary: Summary) -> str:
    lines = [
        f"{ADAPTIVE}: budget per video by the backbone's own confidence on its "
        f"{100 * summary.adaptive[0].confidence_ratio:g} % best tokens;\nthresholds from the other "
        "half of the videos"
    ]
    to_base = {p.keep_ratio: p for p in summary.paired if p.against == "lite"}
    for setting in summary.adaptive:
        pair = to_base[setting.base_ratio]
        lines.append(
            f"  from {setting.base_ratio:g}: {100 * setting.share_small:.0f} % of the videos at "
            f"{setting.small_ratio:g}, top-1 against its base "
            f"{_span(pair.difference, pair.low, pair.high, signed=True)}"
        )
    return "\n".join(lines)


def _classes(summary: Summary) -> str:
    first = summary.classes[0]
    lines = [
        f"Across {len(first.class_ids)} classes, top-1 lost at keep ratio {first.keep_ratio:g} "
        "against the full model's top-1\n(principle 5: easy classes lose less, so both below 0):"
    ]
    for trend in summary.classes:
        rank = f"{trend.spearman:+.2f} [{trend.spearman_low:+.2f}, {trend.spearman_high:+.2f}]"
        slope = f"{trend.slope:+.2f} [{trend.slope_low:+.2f}, {trend.slope_high:+.2f}]"
        lines.append(f"  Spearman {rank}  slope {slope}  {trend.method}")
    return "\n".join(lines)


def _span(value: float, low: float, high: float, *, signed: bool = False) -> str:
    sign = "+" if signed else ""
    return f"{100 * value:{sign}.1f} [{100 * low:{sign}.1f}, {100 * high:{sign}.1f}]"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
