"""Reads a specification: a name that ships with this package, or the path of a user's own YAML.

A user's YAML inherits from the shipped YAML of its `format` whatever it leaves out, so that it
holds only what differs. Validation is strict: a misspelt key must not be ignored in silence.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from datasets_spec.errors import DatasetSpecError
from datasets_spec.files import unsafe_name
from datasets_spec.types import DatasetSpec, LabelSource

FORMATS = ("ssv2", "kinetics400", "ucf101", "hmdb51", "folder", "csv")
PLACEHOLDERS = ("video_id", "split", "label", "label_underscored", "ext")

_FOLDER = Path(__file__).resolve().parent
_SOURCES = ("names", "file", "data", "sorted")
_OWN = ("name", "format", "title", "homepage", "citation")  # never inherited


def list_specs() -> list[str]:
    """Names of the shipped specifications, sorted."""
    return sorted(path.stem for path in _FOLDER.glob("*.yaml"))


def load_spec(name_or_path: str | Path) -> DatasetSpec:
    """Loads a shipped specification by name, or a YAML file by path.

    Raises:
        DatasetSpecError: no such name or file, or the file breaks a rule; names file, key, the
            value and what is allowed.
    """
    text = str(name_or_path)
    shipped = list_specs()
    if text in shipped:
        return _parse(_FOLDER / f"{text}.yaml")
    if text.endswith((".yaml", ".yml")):
        return _parse(Path(text).expanduser())
    raise DatasetSpecError(
        f"unknown dataset {text!r}{suggest(text, shipped)}; "
        f"known: {', '.join(shipped)}; or give the path of a .yaml file"
    )


def suggest(value: str, known: list[str] | tuple[str, ...]) -> str:
    """` (did you mean 'x'?)` if something known is close to `value`, else nothing."""
    close = get_close_matches(value, known, n=1, cutoff=0.6)
    return f" (did you mean {close[0]!r}?)" if close else ""


class _StrictLoader(yaml.SafeLoader):
    """A safe loader that refuses a key given twice, which YAML would settle in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(
                    None, None, "a key must be plain text", key.start_mark
                )
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key.value!r} appears twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.load(path.read_text(encoding="utf-8-sig"), Loader=_StrictLoader)
    except FileNotFoundError as error:
        raise DatasetSpecError(f"no dataset specification at {path}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetSpecError(f"{path}: cannot be read: {error}") from error
    except (yaml.YAMLError, ValueError) as error:  # a number or date that is none
        raise DatasetSpecError(f"{path}: not valid YAML: {error}") from error
    except RecursionError as error:
        raise DatasetSpecError(f"{path}: not valid YAML: nested too deeply") from error
    if not isinstance(values, dict):
        raise DatasetSpecError(f"{path}: expected keys and values, got {type(values).__name__}")
    return values


def _parse(path: Path) -> DatasetSpec:
    own = _read_yaml(path)
    fields = _Fields(path, own)
    for key in own:
        if key not in _PARSERS:
            known = tuple(_PARSERS)
            raise fields.error(key, f"unknown key{suggest(str(key), known)}", ", ".join(known))
    chosen = fields.string("format")
    if chosen not in FORMATS:
        raise fields.error("format", f"{chosen!r}{suggest(chosen, FORMATS)}", ", ".join(FORMATS))
    parsed: dict[str, Any] = {}
    base_path = _FOLDER / f"{chosen}.yaml"
    base = own if path == base_path else _read_yaml(base_path)
    for key, parse in _PARSERS.items():
        if key in own or key in _OWN:
            parsed[key] = parse(fields, key)
        else:
            parsed[key] = parse(_Fields(base_path, base), key)
    if parsed["eval_split"] not in parsed["splits"]:
        declared = tuple(parsed["splits"])
        raise fields.error("eval_split", repr(parsed["eval_split"]), ", ".join(declared))
    return DatasetSpec(**parsed, source=path)


class _Fields:
    """The values of one YAML file, and messages that name the file and the key."""

    def __init__(self, path: Path, values: dict[str, Any]) -> None:
        self.path = path
        self.values = values

    def error(self, key: object, found: str, allowed: str) -> DatasetSpecError:
        return DatasetSpecError(f"{self.path}: {key}: {found}; allowed: {allowed}")

    def string(self, key: str) -> str:
        if key not in self.values:
            raise self.error(key, "missing", "a non-empty string")
        value = self.values[key]
        if not isinstance(value, str) or not value.strip():
            raise self.error(key, f"got {value!r}", "a non-empty string")
        return value.strip()

    def optional_string(self, key: str) -> str:
        return self.string(key) if key in self.values else ""

    def strings(self, key: str, value: object) -> tuple[str, ...]:
        items = [value] if isinstance(value, str) else value
        if not isinstance(items, list) or not items:
            raise self.error(key, f"got {value!r}", "a string or a list of strings")
        for item in items:
            if not isinstance(item, str) or not item.strip():
                raise self.error(key, f"holds {item!r}", "strings (quote numbers, yes and no)")
        if len(set(items)) != len(items):
            raise self.error(key, f"holds a value twice: {items!r}", "every value once")
        return tuple(items)


def _name(fields: _Fields, key: str) -> str:
    name = fields.string(key)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise fields.error(key, f"got {name!r}", "letters, digits, '.', '_' and '-'")
    shipped = fields.path.parent == _FOLDER
    if name in list_specs() and not shipped:
        raise fields.error(key, f"{name!r} is the name of a shipped dataset", "a name of your own")
    return name


def _labels(fields: _Fields, key: str) -> LabelSource:
    value = fields.values.get(key)
    allowed = "one of `names: [...]`, `file: ...`, `data: ...`, `sorted: true`"
    if not isinstance(value, dict) or len(value) != 1 or next(iter(value)) not in _SOURCES:
        raise fields.error(key, f"got {value!r}", allowed)
    source, content = next(iter(value.items()))
    if source == "sorted":
        if content is not True:
            raise fields.error(f"{key}.sorted", f"got {content!r}", "true")
        return LabelSource(source)
    items = fields.strings(f"{key}.{source}", content)
    if source == "names":
        return LabelSource(source, names=items)
    if source == "file":  # absolute, since another YAML may inherit it
        items = tuple(str(fields.path.parent / item) for item in items)
    return LabelSource(source, files=items)


def _splits(fields: _Fields, key: str) -> dict[str, tuple[str, ...]]:
    value = fields.values.get(key)
    if not isinstance(value, dict) or not value:
        raise fields.error(key, f"got {value!r}", "a mapping from split to annotation files")
    for name in value:
        if not isinstance(name, str) or unsafe_name(name):
            raise fields.error(key, f"split {name!r} is no name", "names such as train")
    return {name: fields.strings(f"{key}.{name}", files) for name, files in value.items()}


def _videos(fields: _Fields, key: str) -> tuple[str, ...]:
    patterns = fields.strings(key, fields.values.get(key))
    shown = ", ".join(f"{{{p}}}" for p in PLACEHOLDERS)
    for pattern in patterns:
        used = re.findall(r"{([^{}]*)}", pattern)
        if re.search(r"[{}]", re.sub(r"{[^{}]*}", "", pattern)):
            raise fields.error(key, f"{pattern!r} has a brace without its other", shown)
        for name in used:
            if name not in PLACEHOLDERS:  # nor with an index, a conversion or a format
                found = f"{pattern!r} uses {{{name}}}{suggest(name, PLACEHOLDERS)}"
                raise fields.error(key, found, shown)
        if "video_id" not in used:
            raise fields.error(key, f"{pattern!r} lacks {{video_id}}", "one file per video")
        if pattern.startswith("/") or ".." in pattern.split("/") or "\0" in pattern:
            raise fields.error(key, repr(pattern), "paths below the data root")
    return patterns


def _extensions(fields: _Fields, key: str) -> tuple[str, ...]:
    extensions = fields.strings(key, fields.values.get(key))
    for extension in extensions:
        if not re.fullmatch(r"[a-z0-9]+", extension):
            raise fields.error(key, f"holds {extension!r}", "lower case, without the dot: webm")
    return extensions


def _sampling(fields: _Fields, key: str) -> str:
    value = fields.string(key)
    if not re.fullmatch(r"uniform|stride:[1-9][0-9]*", value):
        raise fields.error(key, f"got {value!r}", "uniform, or stride:N as in stride:4")
    return value


def _flip(fields: _Fields, key: str) -> bool:
    value = fields.values.get(key)
    if not isinstance(value, bool):
        raise fields.error(key, f"got {value!r}", "true or false")
    return value


def _views(fields: _Fields, key: str) -> tuple[int, int]:
    match = re.fullmatch(r"([1-9][0-9]*)x([1-9][0-9]*)", str(fields.values.get(key)))
    if match is None:
        found = f"got {fields.values.get(key)!r}"
        raise fields.error(key, found, "SEGMENTSxCROPS as in 2x3")
    return int(match[1]), int(match[2])


_PARSERS: dict[str, Callable[[_Fields, str], Any]] = {
    "name": _name,
    "format": _Fields.string,
    "title": _Fields.optional_string,
    "homepage": _Fields.optional_string,
    "citation": _Fields.optional_string,
    "labels": _labels,
    "splits": _splits,
    "videos": _videos,
    "extensions": _extensions,
    "sampling": _sampling,
    "flip": _flip,
    "train_views": _views,
    "eval_views": _views,
    "eval_split": _Fields.string,
}
