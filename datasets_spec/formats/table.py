"""A table of videos: `path,label[,split,video_id,group]`, as CSV with a header or as JSON Lines.

A label is a class name or, failing that, a class id; an empty one means that it is not known.
Without `video_id`, the path without its ending is the id. Videos of one `group` are alike (cut from
one recording, say).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from datasets_spec.errors import DatasetSpecError
from datasets_spec.files import annotation_files, first_existing
from datasets_spec.names import whole_number
from datasets_spec.textio import read_csv, read_jsonl
from datasets_spec.types import DatasetSpec, Problem, Report, Row, ignore, same_split

ALL = "all"
_COLUMNS = ("path", "label", "split", "video_id", "group")
_REQUIRED = ("path", "label")


def list_splits(spec: DatasetSpec, root: Path) -> list[str]:
    """Splits with a table of their own, or named in the split column of a common one."""
    found = []
    for split, candidates in spec.splits.items():
        path = first_existing(root, candidates)
        if path is None:
            continue
        own = split == ALL or not _is_common(spec, root, path)
        if own or any(same_split(v.get("split", ""), split) for _, v in _read(path, ignore)):
            found.append(split)
    return found


def read_rows(spec: DatasetSpec, root: Path, split: str, report: Report) -> list[Row]:
    """Reads the rows of a split; those that cannot be used are reported and left out.

    Raises:
        DatasetSpecError: no table, a missing column, or a split asked of a table without splits.
    """
    path = annotation_files(spec, root, split)[0]
    common = _is_common(spec, root, path)
    rows = []
    for where, values in _read(path, report):
        named = values.get("split", "")
        if common and split != ALL and "split" not in values:
            raise DatasetSpecError(
                f"{path}: no split column, so there is no split {split!r}; use split {ALL!r}"
            )
        fault = _split_fault(spec, named, split, common) or _path_fault(root, values["path"])
        if fault is not None:
            report(Problem("malformed", f"{where}: {fault}"))
        elif split == ALL or not common or same_split(named, split):
            rows.append(_row(root, values, where))
    return rows


def _read(path: Path, report: Report) -> Iterator[tuple[str, dict[str, str]]]:
    if path.suffix == ".jsonl":
        return read_jsonl(path, _REQUIRED, _COLUMNS, report)
    return read_csv(path, _REQUIRED, report)


def _is_common(spec: DatasetSpec, root: Path, path: Path) -> bool:
    """Whether the table serves several splits, told apart by its split column."""
    return any(path == root / name for name in spec.splits.get(ALL, ()))


def _split_fault(spec: DatasetSpec, named: str, split: str, common: bool) -> str | None:
    if common and named and not any(same_split(named, known) for known in spec.splits):
        return f"unknown split {named!r}; {spec.name} has {', '.join(spec.splits)}"
    if not common and named and not same_split(named, split):
        return f"split {named!r} in the table of split {split!r}"
    return None


def _path_fault(root: Path, path: str) -> str | None:
    if not path or "\0" in path:
        return "empty path" if not path else f"path {path!r:.80} cannot be a file name"
    relative = PurePosixPath(_relative(root, path))
    if relative.is_absolute() or ".." in relative.parts:
        return f"path {path!r} is not below the data root {root}"
    return None


def _relative(root: Path, path: str) -> str:
    """The path below the root with forward slashes, normalised; absolute if it lies elsewhere."""
    absolute = Path(path)
    if absolute.is_absolute():
        return absolute.relative_to(root).as_posix() if absolute.is_relative_to(root) else path
    return PurePosixPath(path.replace("\\", "/")).as_posix()


def _row(root: Path, values: dict[str, str], where: str) -> Row:
    path = _relative(root, values["path"])
    video_id = values.get("video_id") or PurePosixPath(path).with_suffix("").as_posix()
    label = values["label"]
    return Row(
        video_id,
        label or None,
        where,
        path=path,
        label_id=whole_number(label),
        group=values.get("group") or None,
    )
