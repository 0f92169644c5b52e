"""Numbers of an evaluation's summary as text."""

from __future__ import annotations

import math


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
