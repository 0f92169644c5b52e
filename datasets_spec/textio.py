"""Text, CSV and JSON files, with errors that name file and line and nothing dropped in silence."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from datasets_spec.errors import DatasetSpecError
from datasets_spec.types import Problem, Report


def read_text(path: Path) -> str:
    """The file as text, without a byte-order mark.

    Raises:
        DatasetSpecError: it cannot be opened or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DatasetSpecError(f"{path}: not UTF-8 text (byte {error.start})") from error
    except OSError as error:
        raise DatasetSpecError(f"{path}: cannot be read: {error.strerror}") from error


def read_lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yields (`file:line`, stripped text) of the lines that are not blank."""
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if line.strip():
            yield f"{path}:{number}", line.strip()


def read_csv(
    path: Path, required: Sequence[str], report: Report
) -> Iterator[tuple[str, dict[str, str]]]:
    """Yields (`file:line`, stripped values by column) of a CSV file with a header.

    A row with more or fewer fields than the header is reported and left out.

    Raises:
        DatasetSpecError: no header, a required column missing, or not CSV.
    """
    reader = csv.reader(io.StringIO(read_text(path)), strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        missing = [name for name in required if name not in header]
        if missing or len(set(header)) != len(header):
            raise DatasetSpecError(
                f"{path}:1: the header must name {', '.join(required)} once each, "
                f"got {', '.join(header) or 'nothing'}"
            )
        for fields in reader:
            where = f"{path}:{reader.line_num}"
            if not fields:
                continue
            if len(fields) != len(header):
                message = (
                    f"{where}: {len(fields)} fields under {len(header)} columns: {fields!r:.100}"
                )
                report(Problem("malformed", message))
                continue
            yield where, {k: v.strip() for k, v in zip(header, fields, strict=True)}
    except csv.Error as error:
        raise DatasetSpecError(f"{path}:{reader.line_num}: not valid CSV: {error}") from error


def read_jsonl(
    path: Path, required: Sequence[str], known: Sequence[str], report: Report
) -> Iterator[tuple[str, dict[str, str]]]:
    """Yields (`file:line`, values as text) of a file with one JSON object per line; null is ""."""
    for where, line in read_lines(path):
        try:
            values = json.loads(line, object_pairs_hook=_unique_keys)
        except (json.JSONDecodeError, _DuplicateKeyError) as error:
            report(Problem("malformed", f"{where}: not a valid JSON object: {error}"))
            continue
        fault = _jsonl_fault(values, required, known)
        if fault is not None:
            report(Problem("malformed", f"{where}: {fault}"))
            continue
        texts = {k: "" if v is None else str(v).strip() for k, v in values.items() if k in known}
        yield where, texts


def _jsonl_fault(values: Any, required: Sequence[str], known: Sequence[str]) -> str | None:
    if not isinstance(values, dict):
        return f"expected an object with {', '.join(required)}, got {values!r:.80}"
    missing = [key for key in required if key not in values]
    if missing:
        return f"lacks {', '.join(missing)}: {values!r:.80}"
    for key in known:
        value = values.get(key)
        if isinstance(value, bool) or not isinstance(value, (str, int, type(None))):
            return f"{key} {value!r} is neither text nor a whole number"
    return None


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
        raise DatasetSpecError(f"{path}: {error}") from error


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
    """An object that holds a key twice, of which JSON would keep the last in silence."""


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise _DuplicateKeyError(f"the key {twice!r} appears twice")
    return values
