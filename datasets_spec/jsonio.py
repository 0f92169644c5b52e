"""JSON files with errors that name file and line, and no key settled twice in silence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from datasets_spec.errors import DatasetSpecError


def read_text(path: Path) -> str:
    """The file as text, without a byte-order mark.

    Raises:
        DatasetSpecError: it cannot be opened or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DatasetSpecError(f"{path}: not UTF-8 text: byte {error.start}") from error
    except OSError as error:
        raise DatasetSpecError(f"{path}: cannot be read: {error.strerror}") from error


def parse_json(path: Path) -> tuple[str, Any]:
    """Reads a JSON file; returns its text too, for `entry_line`.

    Raises:
        DatasetSpecError: unreadable, not JSON, or an object with the same key twice.
    """
    text = read_text(path)
    try:
        return text, json.loads(text, object_pairs_hook=_unique_keys)
    except json.JSONDecodeError as error:
        raise DatasetSpecError(f"{path}:{error.lineno}: not valid JSON: {error.msg}") from error
    except _DuplicateKeyError as error:
        raise DatasetSpecError(f"{path}: the key {error.args[0]!r} appears twice") from error


def entry_line(text: str, index: int) -> int:
    """Line (from 1) on which entry `index` of a top-level JSON list begins."""
    decoder = json.JSONDecoder()
    at = text.index("[") + 1
    for number in range(index + 1):
        while text[at] in " \t\r\n,":
            at += 1
        if number < index:
            _, at = decoder.raw_decode(text, at)
    return text.count("\n", 0, at) + 1


class _DuplicateKeyError(ValueError):
    """Carries the key that an object holds twice."""


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _DuplicateKeyError(key)
            seen.add(key)
    return values
