"""The annotation formats: each module reads one file's rows and reports what it cannot use."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from datasets_spec.formats import ssv2
from datasets_spec.types import Report, Row

READERS: dict[str, Callable[[Path, str, Report], list[Row]]] = {
    "ssv2": ssv2.read_rows,
}
