"""JSON that every reader takes: NaN and infinity, which JSON lacks, become null."""

from __future__ import annotations

import json
import math
from typing import Any


def json_values(value: Any) -> Any:
    """Plain JSON values: keys as text, tuples as lists, no NaN and no infinity."""
    if isinstance(value, dict):
        return {str(key): json_values(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_values(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def dumps(value: Any, indent: int | None = None) -> str:
    """The value as JSON text (RFC 8259)."""
    return json.dumps(json_values(value), allow_nan=False, indent=indent)
