"""Checks a dataset before a build: what is missing, empty, double or of an unknown label."""

from __future__ import annotations

import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from datasets_spec.agreement import ClassAgreement, compare_classes
from datasets_spec.errors import DatasetSpecError
from datasets_spec.files import Listing, check_root
from datasets_spec.read import (
    canonical_split,
    label_names,
    list_splits,
    read_rows,
    usable_rows,
    videos_of,
)
from datasets_spec.types import DatasetSpec, Problem


@dataclass(frozen=True, kw_only=True)
class SplitCheck:
    """One split; paths are relative to the data root."""

    split: str
    num_videos: int = 0
    """Videos a build would take, those whose file is missing included."""
    num_unlabelled: int = 0
    """Of these, the videos whose label the dataset holds back."""
    missing: tuple[str, ...] = ()
    """Paths at which no file is; they become rows of status missing_file."""
    empty: tuple[str, ...] = ()
    """Files of zero bytes; they become rows of status decode_error."""
    problems: tuple[Problem, ...] = ()
    """Lines that a build refuses."""
    error: str | None = None
    """Why the split could not be read at all."""

    @property
    def num_found(self) -> int:
        """Videos whose file is there."""
        return self.num_videos - len(self.missing)

    def of_kind(self, kind: str) -> list[str]:
        """Messages of the problems of a kind."""
        return [problem.message for problem in self.problems if problem.kind == kind]


@dataclass(frozen=True, kw_only=True)
class DatasetCheck:
    """What `check_dataset` found."""

    dataset: str
    data_root: str
    num_classes: int
    splits: tuple[SplitCheck, ...]
    overlaps: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Ids listed in two splits, under names such as `train+test`; a leak, though no build minds."""
    agreement: ClassAgreement | None = None
    """None if no checkpoint was given."""
    accept_classes: bool = False
    """Whether a checkpoint whose class names disagree is accepted, as `--accept-classes` says."""

    def obstacles(self) -> list[str]:
        """What would break a build, in words; empty if nothing would."""
        found = []
        for split in self.splits:
            if split.error is not None:
                found.append(split.error)
            elif split.num_videos == 0 and not split.problems:
                found.append(f"split {split.split!r} lists no videos")
            elif split.problems:
                lines = "1 unusable line"
                if len(split.problems) > 1:
                    lines = f"{len(split.problems)} unusable lines"
                found.append(f"split {split.split!r} has {lines}")
        if self.splits and not any(split.num_found for split in self.splits):
            found.append("not one video file is where the specification's patterns say")
        if self.agreement is not None and not self.agreement.fits:
            if not self.agreement.acceptable:
                found.append("the checkpoint has another number of classes than the dataset")
            elif not self.accept_classes:
                found.append("the checkpoint's classes are not the dataset's (--accept-classes)")
        return found


def check_dataset(
    spec: DatasetSpec,
    data_root: str | Path,
    splits: Sequence[str] = (),
    checkpoint_classes: Sequence[str] | None = None,
    sizes: bool = True,
    accept_classes: bool = False,
) -> DatasetCheck:
    """Reads every split's annotations and looks for every file; decodes nothing.

    Args:
        spec: the dataset.
        data_root: its folder.
        splits: splits to check; all that are there if empty.
        checkpoint_classes: class names of a checkpoint to compare with.
        sizes: whether to look for files of zero bytes, which costs one `stat` per video.
        accept_classes: whether class names may disagree with the checkpoint's.

    Raises:
        DatasetSpecError: no data root, an unknown split, no annotations, or no class list.
    """
    root = check_root(data_root)
    chosen = [canonical_split(spec, split) for split in splits] or list_splits(spec, root)
    if not chosen:
        looked = ", ".join(name for names in spec.splits.values() for name in names)
        raise DatasetSpecError(f"{spec.name}: no annotations in {root}; looked for {looked}")
    names = label_names(spec, root, _ignore)  # its problems appear again under their split
    listing = Listing(root)
    checked: list[SplitCheck] = []
    ids: dict[str, set[str]] = {}
    for split in chosen:
        result, ids[split] = _check_split(spec, root, split, names, listing, sizes)
        checked.append(result)
    return DatasetCheck(
        dataset=spec.name,
        data_root=str(root),
        num_classes=len(names),
        splits=tuple(checked),
        overlaps=_overlaps(ids),
        agreement=None
        if checkpoint_classes is None
        else compare_classes(names, checkpoint_classes),
        accept_classes=accept_classes,
    )


def _check_split(
    spec: DatasetSpec,
    root: Path,
    split: str,
    names: list[str],
    listing: Listing,
    sizes: bool,
) -> tuple[SplitCheck, set[str]]:
    problems: list[Problem] = []
    try:
        listed = read_rows(spec, root, split, problems.append)
        rows = usable_rows(spec, listed, names, problems.append)
        videos = videos_of(spec, rows, names, split, listing)
    except DatasetSpecError as error:
        return SplitCheck(split=split, error=str(error)), set()
    missing, empty = [], []
    for video in videos:
        if not listing.has_file(video.path):
            missing.append(video.path)
        elif sizes:
            size = _size(root / video.path)
            if size is None:
                missing.append(video.path)
            elif size == 0:
                empty.append(video.path)
    result = SplitCheck(
        split=split,
        num_videos=len(videos),
        num_unlabelled=sum(video.label is None for video in videos),
        missing=tuple(missing),
        empty=tuple(empty),
        problems=tuple(problems),
    )
    return result, {video.video_id for video in videos}


def _size(path: Path) -> int | None:
    """Bytes of a regular file, 1 for anything else (decoding says what it is), None if nothing."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    except OSError:
        return 1
    return status.st_size if stat.S_ISREG(status.st_mode) else 1


def _overlaps(ids: dict[str, set[str]]) -> dict[str, tuple[str, ...]]:
    """Ids in two splits of one partition: `train2` and `test2` are one, `all` is everything."""
    found = {}
    splits = [split for split in ids if split != "all"]
    for number, one in enumerate(splits):
        for other in splits[number + 1 :]:
            shared = ids[one] & ids[other]
            if shared and _fold(one) == _fold(other):
                found[f"{one}+{other}"] = tuple(sorted(shared))
    return found


def _fold(split: str) -> str:
    """The number a split name ends in."""
    return split[len(split.rstrip("0123456789")) :]


def _ignore(problem: Problem) -> None:
    del problem
