"""Numbers as sentences have them."""

from __future__ import annotations

import math


def interval(low: float, high: float, digits: str = ".1f") -> str:
    """In brackets; of too few videos it is unknown."""
    known = math.isfinite(low) and math.isfinite(high)
    return f"[{low:{digits}}, {high:{digits}}]" if known else "[unknown]"
