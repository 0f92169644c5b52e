"""Class names and their order; the index is the class id."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from datasets_spec.errors import DatasetSpecError
from datasets_spec.files import first_existing
from datasets_spec.names import as_utf8, class_numbers, normal, whole_number
from datasets_spec.textio import parse_json, read_text
from datasets_spec.types import DatasetSpec, Row

MAX_CLASSES = 2**15  # the store keeps class ids as int16


class ClassIndex:
    """Finds the class that an annotation means: a name beats an id."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names
        self._by_name = {name: class_id for class_id, name in enumerate(names)}
        numbers = [whole_number(name) for name in names]
        times = Counter(numbers)
        self._twice = {number for number, count in times.items() if count > 1}
        self._by_number = {
            number: class_id
            for class_id, number in enumerate(numbers)
            if number is not None and number not in self._twice
        }

    def named(self, row: Row) -> int | None:
        """The class whose name the label is; the numbers `7` and `7.0` name "7" and "07" too."""
        if row.label in self._by_name:
            return self._by_name[row.label]
        return None if row.label_id is None else self._by_number.get(row.label_id)

    def find(self, row: Row) -> int | None:
        """The class of that name or, failing that, with that id; None if there is neither."""
        class_id = self.named(row)
        return row.label_id if class_id is None and self.has_id(row) else class_id

    def has_id(self, row: Row) -> bool:
        """Whether the label is a class id, and not the number of two names."""
        in_range = row.label_id is not None and row.label_id < len(self.names)
        return in_range and not self.is_twice(row)

    def is_twice(self, row: Row) -> bool:
        """Whether the label is the number of two names, such as "1" and "01"."""
        return row.label_id in self._twice and row.label_id is not None

    def is_both(self, row: Row) -> bool:
        """Whether the label is the name of one class and the id of another."""
        return self.named(row) not in (None, row.label_id) and self.has_id(row)

    @property
    def has_numbers(self) -> bool:
        """Whether a label may be the name of one class and the id of another."""
        return any(number != class_id for number, class_id in self._by_number.items())


def listed_names(spec: DatasetSpec, root: Path) -> list[str] | None:
    """Names from the specification, a file beside it or the dataset; None for source `sorted`.

    Raises:
        DatasetSpecError: the file is missing or does not number its classes 0..n-1 once each.
    """
    labels = spec.labels
    if labels.source == "sorted":
        return None
    if labels.source == "names":
        return _by_id(spec.source, [(name, i) for i, name in enumerate(labels.names)])
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
    numbered = [re.fullmatch(r"([0-9]{1,9})\s+(\S.*)", line) for line in lines if line]
    if numbered and all(numbered):
        pairs = [(match[2], int(match[1]) - 1) for match in numbered if match]
        return _by_id(path, pairs, first=1)
    return _by_id(path, [(name, i) for i, name in enumerate(line for line in lines if line)])


def _from_json(path: Path, values: Any) -> list[str]:
    if isinstance(values, list):
        return _named(path, [(name, number) for number, name in enumerate(values)])
    if not isinstance(values, dict):
        raise DatasetSpecError(f"{path}: expected names with their ids, got {values!r:.60}")
    if not all(whole_number(key) is not None for key in values):
        return _named(path, values.items())
    by_id = [(name, number) for number, name in values.items()]
    try:
        as_names = _named(path, values.items())
    except DatasetSpecError:
        return _named(path, by_id)
    try:
        as_ids = _named(path, by_id)
    except DatasetSpecError:
        return as_names
    if as_ids != as_names:
        raise DatasetSpecError(
            f"{path}: keys and values are all numbers, so nothing tells names from ids; "
            "give the names as a list, in the order of their ids"
        )
    return as_names


def _named(path: Path, pairs: Iterable[tuple[Any, Any]]) -> list[str]:
    """The names in the order of their ids, from pairs of anything that JSON can hold."""
    checked = []
    for name, number in pairs:
        if not isinstance(name, str) or not normal(name):
            raise DatasetSpecError(f"{path}: class name {name!r:.80} is no text")
        whole = None if isinstance(number, bool) else whole_number(str(number))
        if whole is None:
            raise DatasetSpecError(
                f"{path}: id {number!r:.40} of class {name!r:.80} is no whole number"
            )
        checked.append((name, whole))
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
        names[number] = normal(name)
        if as_utf8(name) != name:
            raise DatasetSpecError(
                f"{path}: class {as_utf8(name)!r} is no text that UTF-8 can hold"
            )
    seen: set[str] = set()
    for name in names.values():
        if name in seen:
            raise DatasetSpecError(f"{path}: class {name!r} is listed twice")
        seen.add(name)
    holes = [number for number in range(len(names)) if number not in names]
    if holes:
        raise DatasetSpecError(
            f"{path}: ids must run from {first} without a hole, but {holes[0] + first} is missing "
            f"({len(names)} classes, largest id {max(names) + first})"
        )
    return [names[number] for number in range(len(names))]


def in_order(names: Iterable[str]) -> list[str]:
    """Each name once, sorted; by number where all are numbers, so that "10" follows "9"."""
    unique = sorted(set(names))
    numbers = class_numbers(unique)
    if numbers is None:
        return unique
    return [name for _, name in sorted(zip(numbers, unique, strict=True))]


def sorted_names(rows: list[Row]) -> list[str]:
    """Every class name the rows use, in order; for class ids, the numbers 0 to the largest.

    Raises:
        DatasetSpecError: names and ids mixed, an id beyond `MAX_CLASSES`, or no label at all.
    """
    by_id = {row.label_id: row for row in rows if row.label_id is not None}
    by_name = {row.label: row for row in rows if row.label is not None and row.label_id is None}
    if by_id and by_name:
        one, other = next(iter(by_id.values())), next(iter(by_name.values()))
        raise DatasetSpecError(
            f"labels mix ids and names: {one.label} ({one.where}) and {other.label!r} "
            f"({other.where}); list the names in the YAML's `labels`"
        )
    if by_name:
        return in_order(name for name in by_name if name is not None)
    if not by_id:
        raise DatasetSpecError("no video has a label; list the names in the YAML's `labels`")
    largest = max(by_id)
    if largest >= MAX_CLASSES:
        raise DatasetSpecError(
            f"{by_id[largest].where}: class id {largest}; ids must be below {MAX_CLASSES}"
        )
    return [str(number) for number in range(largest + 1)]
