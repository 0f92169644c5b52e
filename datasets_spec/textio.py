"""Text, CSV and JSON files, with errors that name file and line and nothing dropped in silence."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from datasets_spec.errors import DatasetSpecError
from datasets_spec.names import whole_number
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
            values = _load(line)
        except _JsonFault as error:
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
        whole = isinstance(value, float) and whole_number(str(value)) is not None
        if isinstance(value, bool) or not (whole or isinstance(value, (str, int, type(None)))):
            return f"{key} {value!r:.80} is neither text nor a whole number"
    return None


def parse_json(path: Path) -> tuple[str, Any]:
    """Reads a JSON file; returns its text too, for `entry_lines`.

    Raises:
        DatasetSpecError: unreadable, not JSON, or an object with the same key twice.
    """
    text = read_text(path)
    try:
        return text, _load(text)
    except _JsonFault as fault:
        line = "" if fault.line is None else f":{fault.line}"
        raise DatasetSpecError(f"{path}{line}: not valid JSON: {fault}") from fault


def entry_lines(text: str) -> list[int]:
    """Lines (from 1) on which the entries of a top-level JSON list begin."""
    decoder = json.JSONDecoder()
    lines: list[int] = []
    line, counted = 1, 0
    at = text.index("[") + 1
    while True:
        while text[at] in " \t\r\n,":
            at += 1
        if text[at] == "]":
            return lines
        line += text.count("\n", counted, at)
        counted = at
        lines.append(line)
        _, at = decoder.raw_decode(text, at)


class _JsonFault(ValueError):
    """Why a text is no JSON that can be used, and on which line of it where that is known."""

    def __init__(self, message: str, line: int | None = None) -> None:
        super().__init__(message)
        self.line = line


def _load(text: str) -> Any:
    """`json.loads`, strict about keys, with one error for all that a text can do to it."""
    try:
        return json.loads(text, object_pairs_hook=_unique_keys)
    except json.JSONDecodeError as error:
        raise _JsonFault(error.msg, error.lineno) from error
    except RecursionError as error:
        raise _JsonFault("lists or objects are nested too deeply") from error
    except _JsonFault:
        raise
    except ValueError as error:  # Python converts no number of thousands of digits
        raise _JsonFault("a number has too many digits") from error


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):  # JSON would keep the last in silence
        keys = Counter(key for key, _ in pairs)
        raise _JsonFault(f"the key {keys.most_common(1)[0][0]!r:.80} appears twice")
    return values
