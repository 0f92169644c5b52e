"""Reads a dataset: its videos of one split, its class names, and which splits are there."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from datasets_spec.class_names import MAX_CLASSES, ClassIndex, listed_names, sorted_names
from datasets_spec.errors import DatasetSpecError
from datasets_spec.files import Listing, check_root, has_annotations
from datasets_spec.formats import READERS
from datasets_spec.names import as_utf8, composed, normal
from datasets_spec.placement import place_rows
from datasets_spec.spec import suggest
from datasets_spec.types import (
    DatasetSpec,
    Problem,
    Report,
    Row,
    Skipped,
    Video,
    ignore,
    same_split,
)
from datasets_spec.walk import count_skipped, worth_saying

MAX_TEXT = 4096
"""Characters of an id, a label or a path: the longest path that Linux opens."""

_SHOWN = 5
"""Names in a message."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Split:
    """What a build takes of a dataset."""

    videos: list[Video]
    """Sorted by `video_id`."""
    label_names: list[str]
    """Class names of the whole dataset; the index is the class id."""


def read_split(
    spec: DatasetSpec, data_root: str | Path, split: str, *, labelled: bool = True
) -> Split:
    """The videos of a split and the dataset's classes; a missing file stays in the list.

    Files and folders that give no row are counted in a warning. Where `labelled` is false, no label
    is looked up and no class list is read: none needs to be there, or to be right.

    Raises:
        DatasetSpecError: no such split or annotation file, a malformed line, an unknown label,
            the same video twice, a group in another split, too, or no video at all; says file, line
            and value.
    """
    root = check_root(data_root)
    split = canonical_split(spec, split)
    skipped: dict[Skipped, None] = {}  # an ordered set

    def report(found: Problem | Skipped) -> None:
        if isinstance(found, Problem):
            raise DatasetSpecError(found.message)
        skipped[found] = None

    listed = read_rows(spec, root, split, report)
    names = label_names(spec, root, report) if labelled else None
    rows = usable_rows(spec, listed, names, report)
    report_crossing_groups(spec, root, split, rows, report)
    if not rows:
        raise DatasetSpecError(f"{spec.name}: split {split!r} of {root} lists no videos")
    if worth_saying(skipped):
        _log.warning(
            "%s: %d files or folders give no row (%s); `lite-pipeline datasets check` names them",
            root,
            len(skipped),
            count_skipped(skipped),
        )
    return Split(videos_of(spec, rows, names, split, Listing(root)), names or [])


def read_videos(spec: DatasetSpec, data_root: str | Path, split: str) -> list[Video]:
    """The videos of a split; see `read_split`."""
    return read_split(spec, data_root, split).videos


def read_label_names(spec: DatasetSpec, data_root: str | Path) -> list[str]:
    """Class names of the dataset; the index is the class id.

    Raises:
        DatasetSpecError: the class list is missing or malformed, or, where the names are gathered
            from the annotations, these are.
    """

    def report(found: Problem | Skipped) -> None:
        if isinstance(found, Problem):
            raise DatasetSpecError(found.message)

    return label_names(spec, check_root(data_root), report)


def list_splits(spec: DatasetSpec, data_root: str | Path) -> list[str]:
    """The splits whose annotations are below the data root, in the specification's order."""
    root = check_root(data_root)
    reader = READERS[spec.format]
    if hasattr(reader, "list_splits"):
        splits: list[str] = reader.list_splits(spec, root)
        return splits
    return [split for split in spec.splits if has_annotations(spec, root, split)]


def default_split(spec: DatasetSpec, data_root: str | Path, preferred: str | None = None) -> str:
    """The split to take when none is named: the preferred one, or the only one there is.

    Args:
        spec: the dataset.
        data_root: its folder.
        preferred: `train` for a build; by default the split that papers report on.

    Raises:
        DatasetSpecError: neither exists.
    """
    wanted = preferred if preferred in spec.splits else spec.eval_split
    found = list_splits(spec, data_root)
    if wanted in found or not found:
        return wanted  # reading it says what was looked for, if it is not there
    if len(found) == 1:
        return found[0]
    raise DatasetSpecError(
        f"{spec.name}: {data_root} has no split {wanted!r}; name one with --split: "
        f"{', '.join(found)}"
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
    reader = READERS[spec.format]
    if names is not None:
        _report_ambiguous(spec, root, names, report)
    elif hasattr(reader, "class_names"):
        names = reader.class_names(spec, root, report)
    else:
        names = sorted_names(_all_rows(spec, root, report))
    if len(names) > MAX_CLASSES:
        raise DatasetSpecError(
            f"{spec.name}: {len(names)} classes; a store holds at most {MAX_CLASSES}"
        )
    return names


def read_rows(spec: DatasetSpec, root: Path, split: str, report: Report) -> list[Row]:
    """The usable lines of a split's annotations; the others are reported.

    Ids and labels are in Unicode's composed form, so that a dataset is the same on every system.
    """
    rows: list[Row] = READERS[spec.format].read_rows(spec, root, split, report)
    return [plain for row in rows if (plain := _plain(row, report)) is not None]


def usable_rows(
    spec: DatasetSpec, rows: Sequence[Row], names: Sequence[str] | None, report: Report
) -> list[Row]:
    """The first row of each video whose label is known; the others are reported.

    Without `names` labels are not looked at.
    """
    classes = None if names is None else ClassIndex(names)
    kept: dict[str, Row] = {}
    for row in rows:
        fault = None if classes is None else _label_fault(spec, row, classes)
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
    spec: DatasetSpec,
    rows: Sequence[Row],
    names: Sequence[str] | None,
    split: str,
    listing: Listing,
) -> list[Video]:
    """Turns usable rows into videos: labels to ids, files placed, sorted by `video_id`.

    Without `names` no video has a label; a file may still lie in a folder that is called so.
    """
    folders = sorted({row.label for row in rows if row.label is not None})
    paths = place_rows(spec, rows, folders if names is None else names, split, listing)
    classes = None if names is None else ClassIndex(names)
    videos = [
        Video(row.video_id, path, None if classes is None else classes.find(row), split, row.group)
        for row, path in zip(rows, paths, strict=True)
    ]
    return sorted(videos, key=lambda video: video.video_id)


def report_crossing_groups(
    spec: DatasetSpec, root: Path, split: str, rows: Sequence[Row], report: Report
) -> None:
    """Report groups that have some videos in this split and others in another.

    What is learnt from the ones would be judged by the others, which are too much like them.

    Args:
        spec: the dataset.
        root: its folder.
        split: as the specification spells it.
        rows: of the split.
        report: receives one problem for each other split.
    """
    mine = {row.video_id: row.group for row in rows if row.group is not None}
    for other in list_splits(spec, root) if mine else ():
        listed = read_rows(spec, root, other, ignore)  # its own faults, reading it will say
        theirs = {row.video_id: row.group for row in listed if row.group is not None}
        # A split that holds the other's videos (`all`) tears no group apart.
        crossing = {mine[v] for v in mine.keys() - theirs} & {
            theirs[v] for v in theirs.keys() - mine
        }
        if crossing:
            first = sorted(crossing)[:_SHOWN]
            more = f" and {len(crossing) - len(first)} more" if len(crossing) > len(first) else ""
            message = (
                f"{spec.name} in {root}: groups in split {split!r} and in {other!r}: "
                f"{', '.join(first)}{more}; move each to one split, since videos of one group are "
                "too alike to judge by"
            )
            report(Problem("crossing_groups", message))


def _all_rows(spec: DatasetSpec, root: Path, report: Report) -> list[Row]:
    splits = list_splits(spec, root) or [spec.eval_split]  # reading it says what is missing
    return [row for split in splits for row in read_rows(spec, root, split, report)]


def _report_ambiguous(spec: DatasetSpec, root: Path, names: list[str], report: Report) -> None:
    """Report a table whose numbers are names in one place and can only be ids in another."""
    classes = ClassIndex(names)
    if not classes.has_numbers:
        return
    rows = _all_rows(spec, root, ignore)  # what else is wrong with them, reading them will say
    both = next((row for row in rows if classes.is_both(row)), None)
    only_id = next(
        (row for row in rows if classes.named(row) is None and classes.has_id(row)), None
    )
    if both is not None and only_id is not None:
        message = (
            f"{only_id.where}: label {only_id.label} can only be a class id, but {both.label} "
            f"({both.where}) is the name of class {classes.named(both)} and the id of class "
            f"{both.label_id}: write the names in every row"
        )
        report(Problem("unknown_label", message))


def _plain(row: Row, report: Report) -> Row | None:
    """The row in composed form, the label without white space around it, as class names are.

    Reported where a store could not hold it.
    """
    label = None if row.label is None else normal(row.label)
    texts = (row.video_id, row.label or "", row.path or "")
    longest = max(texts, key=len)
    if len(longest) > MAX_TEXT:
        what = f"a text of {len(longest)} characters: {longest!r:.80}"
        report(Problem("malformed", f"{row.where}: {what}"))
        return None
    if all(text.isascii() for text in texts):
        return row if label == row.label else replace(row, label=label)
    if any(as_utf8(text) != text for text in texts):
        shown = as_utf8(" ".join(texts))
        report(Problem("malformed", f"{row.where}: no text that UTF-8 can hold: {shown!r:.200}"))
        return None
    return replace(row, video_id=composed(row.video_id), label=label)


def _label_fault(spec: DatasetSpec, row: Row, classes: ClassIndex) -> str | None:
    if row.label is None:
        return None
    found = classes.find(row)
    names = classes.names
    if found is None and classes.is_twice(row):
        return f"label {row.label} is the number of two classes: write their names"
    if found is None and row.label_id is not None:
        return f"unknown label {row.label}; {spec.name} has class ids 0 to {len(names) - 1}"
    if found is None:
        close = suggest(row.label, list(names))
        return (
            f"unknown label {row.label!r:.200}{close}; not among the {len(names)} classes of "
            f"{spec.name}"
        )
    if row.number is not None and row.number != found:
        return (
            f"class {row.label!r} has number {row.number + 1} here and {found + 1} in the class "
            "list; for a renumbered subset set `labels: {data: ...}` to its own classInd.txt"
        )
    return None
