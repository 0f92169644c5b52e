"""Class names and their order; the index is the class id."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from datasets_spec.errors import DatasetSpecError
from datasets_spec.files import first_existing
from datasets_spec.textio import parse_json, read_text
from datasets_spec.types import DatasetSpec, Row

MAX_CLASSES = 2**15  # the store keeps class ids as int16


def listed_names(spec: DatasetSpec, root: Path) -> list[str] | None:
    """Names from the specification, a file beside it or the dataset; None for source `sorted`.

    Raises:
        DatasetSpecError: the file is missing or does not number its classes 0..n-1 once each.
    """
    labels = spec.labels
    if labels.source == "sorted":
        return None
    if labels.source == "names":
        return list(labels.names)
    base = spec.source.parent if labels.source == "file" else root
    path = first_existing(base, labels.files)
    if path is None:
        raise DatasetSpecError(
            f"{spec.name}: no class list in {base}; looked for {', '.join(labels.files)}"
        )
    return read_class_file(path)


def read_class_file(path: Path) -> list[str]:
    """Reads a class list.

    JSON holds `{"name": id}`, `{"id": "name"}` or a list of names; text holds one name a line, or
    `1 name` lines counted from 1 as in UCF101's classInd.txt.

    Raises:
        DatasetSpecError: not one name for each id from 0 on; says file and value.
    """
    if path.suffix == ".json":
        return _from_json(path, parse_json(path)[1])
    lines = [line.strip() for line in read_text(path).splitlines()]
    numbered = [re.fullmatch(r"(\d+)\s+(\S.*)", line) for line in lines if line]
    if numbered and all(numbered):
        pairs = [(match[2], int(match[1]) - 1) for match in numbered if match]
        return _by_id(path, pairs, first=1)
    return _by_id(path, [(name, i) for i, name in enumerate(line for line in lines if line)])


def _from_json(path: Path, values: Any) -> list[str]:
    if isinstance(values, list):
        pairs = [(name, number) for number, name in enumerate(values)]
    elif isinstance(values, dict):
        pairs = list(values.items())
        if all(key.isdecimal() for key in values):
            pairs = [(name, number) for number, name in pairs]
    else:
        raise DatasetSpecError(f"{path}: expected names with their ids, got {values!r:.60}")
    checked = []
    for name, number in pairs:
        if not isinstance(name, str) or not name:
            raise DatasetSpecError(f"{path}: class name {name!r} is no text")
        if isinstance(number, bool) or not re.fullmatch(r"\d+", str(number)):
            raise DatasetSpecError(f"{path}: id {number!r} of class {name!r} is no whole number")
        checked.append((name, int(number)))
    return _by_id(path, checked)


def _by_id(path: Path, pairs: list[tuple[str, int]], first: int = 0) -> list[str]:
    if not pairs:
        raise DatasetSpecError(f"{path}: lists no classes")
    names: dict[int, str] = {}
    for name, number in pairs:
        if number in names:
            raise DatasetSpecError(
                f"{path}: id {number + first} names both {names[number]!r} and {name!r}"
            )
        names[number] = name
    if len(set(names.values())) != len(names):
        twice = next(n for n in names.values() if list(names.values()).count(n) > 1)
        raise DatasetSpecError(f"{path}: class {twice!r} is listed twice")
    holes = [number for number in range(len(names)) if number not in names]
    if holes:
        raise DatasetSpecError(
            f"{path}: ids must run from {first} without a hole, but {holes[0] + first} is missing "
            f"({len(names)} classes, largest id {max(names) + first})"
        )
    return [names[number] for number in range(len(names))]


def sorted_names(rows: list[Row]) -> list[str]:
    """Every class name the rows use, sorted; for class ids, the numbers 0 to the largest.

    Raises:
        DatasetSpecError: names and ids mixed, an id beyond `MAX_CLASSES`, or no label at all.
    """
    labelled = [row for row in rows if row.label is not None]
    by_id = [row for row in labelled if isinstance(row.label, int)]
    by_name = [row for row in labelled if isinstance(row.label, str)]
    if by_id and by_name:
        raise DatasetSpecError(
            f"labels mix ids and names: {by_id[0].label!r} ({by_id[0].where}) and "
            f"{by_name[0].label!r} ({by_name[0].where}); list the names in the YAML's `labels`"
        )
    if not labelled:
        raise DatasetSpecError("no video has a label; list the names in the YAML's `labels`")
    if by_name:
        return sorted({str(row.label) for row in by_name})
    largest = max(by_id, key=lambda row: int(row.label or 0))
    if int(largest.label or 0) >= MAX_CLASSES:
        raise DatasetSpecError(
            f"{largest.where}: class id {largest.label}; ids must be below {MAX_CLASSES}"
        )
    return [str(number) for number in range(int(largest.label or 0) + 1)]
