"""Reads a dataset: its videos of one split, its class names, and which splits are there."""

from __future__ import annotations

from pathlib import Path

from datasets_spec.errors import DatasetSpecError
from datasets_spec.files import Listing, check_root, first_existing, place_rows
from datasets_spec.formats import READERS
from datasets_spec.labels import listed_names
from datasets_spec.spec import suggest
from datasets_spec.types import SPLIT_ALIASES, DatasetSpec, Problem, Report, Row, Video


def read_videos(spec: DatasetSpec, data_root: str | Path, split: str) -> list[Video]:
    """The videos of a split, sorted by `video_id`; one whose file is missing stays in the list.

    Raises:
        DatasetSpecError: no such split or annotation file, a malformed line, an unknown label or
            the same video twice; says file, line and value.
    """
    root = check_root(data_root)
    rows = read_rows(spec, root, split, _raise)
    names = read_label_names(spec, root)
    videos = resolve(spec, root, split, rows, names, _raise)
    if not videos:
        raise DatasetSpecError(f"{spec.name}: split {split!r} of {root} lists no videos")
    return videos


def read_label_names(spec: DatasetSpec, data_root: str | Path) -> list[str]:
    """Class names of the dataset; the index is the class id.

    Raises:
        DatasetSpecError: the class list is missing or malformed.
    """
    root = check_root(data_root)
    names = listed_names(spec, root)
    if names is None:
        raise DatasetSpecError(f"{spec.name}: no class list")
    return names


def canonical_split(spec: DatasetSpec, split: str) -> str:
    """The split as the specification spells it: `val` and `validation` mean the same.

    Raises:
        DatasetSpecError: the dataset has no such split.
    """
    spellings = (split, *SPLIT_ALIASES) if split in SPLIT_ALIASES else (split,)
    for spelling in spellings:
        if spelling in spec.splits:
            return spelling
    known = list(spec.splits)
    raise DatasetSpecError(
        f"{spec.name} has no split {split!r}{suggest(split, known)}; it has {', '.join(known)}"
    )


def read_rows(spec: DatasetSpec, root: Path, split: str, report: Report) -> list[Row]:
    """The usable lines of a split's annotation file."""
    candidates = spec.splits[canonical_split(spec, split)]
    path = first_existing(root, candidates)
    if path is None:
        raise DatasetSpecError(
            f"{spec.name}: no annotations of split {split!r} in {root}; "
            f"looked for {', '.join(candidates)}"
        )
    return READERS[spec.format](path, split, report)


def resolve(
    spec: DatasetSpec, root: Path, split: str, rows: list[Row], names: list[str], report: Report
) -> list[Video]:
    """Turns rows into videos: labels to ids, ids made unique, files placed, sorted."""
    split = canonical_split(spec, split)
    ids = {name: number for number, name in enumerate(names)}
    usable: dict[str, Row] = {}
    for row in rows:
        if row.video_id in usable:
            first = usable[row.video_id].where
            message = f"{row.where}: video {row.video_id!r} is listed twice, first at {first}"
            report(Problem("duplicate", message))
        elif isinstance(row.label, str) and row.label not in ids:
            message = (
                f"{row.where}: unknown label {row.label!r}{suggest(row.label, names)}; "
                f"not among the {len(names)} classes of {spec.name}"
            )
            report(Problem("unknown_label", message))
        else:
            usable[row.video_id] = row
    kept = list(usable.values())
    paths = place_rows(spec, kept, split, Listing(root))
    videos = [
        Video(
            row.video_id, path, ids[row.label] if isinstance(row.label, str) else row.label, split
        )
        for row, path in zip(kept, paths, strict=True)
    ]
    return sorted(videos, key=lambda video: video.video_id)


def _raise(problem: Problem) -> None:
    raise DatasetSpecError(problem.message)
