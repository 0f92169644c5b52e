"""Reads a dataset: its videos of one split, its class names, and which splits are there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from datasets_spec.class_names import listed_names, sorted_names
from datasets_spec.errors import DatasetSpecError
from datasets_spec.files import Listing, check_root, has_annotations, place_rows
from datasets_spec.formats import READERS
from datasets_spec.spec import suggest
from datasets_spec.types import DatasetSpec, Problem, Report, Row, Video, same_split


def read_videos(spec: DatasetSpec, data_root: str | Path, split: str) -> list[Video]:
    """The videos of a split, sorted by `video_id`; one whose file is missing stays in the list.

    Raises:
        DatasetSpecError: no such split or annotation file, a malformed line, an unknown label,
            the same video twice, or no video at all; says file, line and value.
    """
    root = check_root(data_root)
    split = canonical_split(spec, split)
    listed = read_rows(spec, root, split, _raise)
    names = label_names(spec, root, _raise)
    rows = usable_rows(spec, listed, names, _raise)
    if not rows:
        raise DatasetSpecError(f"{spec.name}: split {split!r} of {root} lists no videos")
    return videos_of(spec, rows, names, split, Listing(root))


def read_label_names(spec: DatasetSpec, data_root: str | Path) -> list[str]:
    """Class names of the dataset; the index is the class id.

    Raises:
        DatasetSpecError: the class list is missing or malformed, or, where the names are gathered
            from the annotations, these are.
    """
    return label_names(spec, check_root(data_root), _raise)


def list_splits(spec: DatasetSpec, data_root: str | Path) -> list[str]:
    """The splits whose annotations are below the data root, in the specification's order."""
    root = check_root(data_root)
    reader = READERS[spec.format]
    if hasattr(reader, "list_splits"):
        splits: list[str] = reader.list_splits(spec, root)
        return splits
    return [split for split in spec.splits if has_annotations(spec, root, split)]


def default_split(spec: DatasetSpec, data_root: str | Path) -> str:
    """The split to take when none is named: the evaluation split, or the only one there is.

    Raises:
        DatasetSpecError: neither exists.
    """
    found = list_splits(spec, data_root)
    if spec.eval_split in found or not found:
        return spec.eval_split  # reading it says what was looked for, if it is not there
    if len(found) == 1:
        return found[0]
    raise DatasetSpecError(
        f"{spec.name}: {data_root} has no split {spec.eval_split!r}; name one of {', '.join(found)}"
    )


def canonical_split(spec: DatasetSpec, split: str) -> str:
    """The split as the specification spells it: `val` and `validation` mean the same.

    Raises:
        DatasetSpecError: the dataset has no such split.
    """
    for known in spec.splits:
        if same_split(split, known):
            return known
    declared = list(spec.splits)
    raise DatasetSpecError(
        f"{spec.name} has no split {split!r}{suggest(split, declared)}; "
        f"it has {', '.join(declared)}"
    )


def label_names(spec: DatasetSpec, root: Path, report: Report) -> list[str]:
    """`read_label_names`, with problems of the annotations reported instead of raised."""
    names = listed_names(spec, root)
    if names is not None:
        return names
    reader = READERS[spec.format]
    if hasattr(reader, "class_names"):
        gathered: list[str] = reader.class_names(spec, root)
        return gathered
    splits = list_splits(spec, root) or [spec.eval_split]  # reading it says what is missing
    return sorted_names([row for s in splits for row in read_rows(spec, root, s, report)])


def read_rows(spec: DatasetSpec, root: Path, split: str, report: Report) -> list[Row]:
    """The usable lines of a split's annotations; the others are reported."""
    rows: list[Row] = READERS[spec.format].read_rows(spec, root, split, report)
    return rows


def usable_rows(
    spec: DatasetSpec, rows: Sequence[Row], names: Sequence[str], report: Report
) -> list[Row]:
    """The first row of each video whose label is known; the others are reported."""
    ids = {name: number for number, name in enumerate(names)}
    kept: dict[str, Row] = {}
    for row in rows:
        fault = _label_fault(spec, row, ids)
        if row.video_id in kept:
            first = kept[row.video_id].where
            message = f"{row.where}: video {row.video_id!r} is listed twice, first at {first}"
            report(Problem("duplicate", message))
        elif fault is not None:
            report(Problem("unknown_label", f"{row.where}: {fault}"))
        else:
            kept[row.video_id] = row
    return list(kept.values())


def videos_of(
    spec: DatasetSpec, rows: Sequence[Row], names: Sequence[str], split: str, listing: Listing
) -> list[Video]:
    """Turns usable rows into videos: labels to ids, files placed, sorted by `video_id`."""
    ids = {name: number for number, name in enumerate(names)}
    videos = []
    for row, path in zip(rows, place_rows(spec, rows, split, listing), strict=True):
        label = ids[row.label] if isinstance(row.label, str) else row.label
        videos.append(Video(row.video_id, path, label, split))
    return sorted(videos, key=lambda video: video.video_id)


def _label_fault(spec: DatasetSpec, row: Row, ids: dict[str, int]) -> str | None:
    label = row.label
    if isinstance(label, int) and label >= len(ids):
        return f"unknown label {label}; {spec.name} has class ids 0 to {len(ids) - 1}"
    if not isinstance(label, str):
        return None
    if label not in ids:
        close = suggest(label, list(ids))
        return f"unknown label {label!r}{close}; not among the {len(ids)} classes of {spec.name}"
    if row.number is not None and row.number != ids[label]:
        return (
            f"class {label!r} has number {row.number + 1} here and {ids[label] + 1} in the class "
            "list; for a renumbered subset set `labels: {data: ...}` to its own classInd.txt"
        )
    return None


def _raise(problem: Problem) -> None:
    raise DatasetSpecError(problem.message)
