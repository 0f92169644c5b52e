"""Checks a dataset before a build: what is missing, empty, double or of an unknown label.

It goes the way of a build (`read.read_split`), but collects what that one stops at.
"""

from __future__ import annotations

import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

from datasets_spec.agreement import ClassAgreement, compare_classes
from datasets_spec.alike import same_content
from datasets_spec.errors import DatasetSpecError
from datasets_spec.files import Listing, check_root, join
from datasets_spec.names import as_utf8
from datasets_spec.read import (
    canonical_split,
    default_split,
    label_names,
    list_splits,
    read_rows,
    report_crossing_groups,
    usable_rows,
    videos_of,
)
from datasets_spec.types import DatasetSpec, Problem, Skipped, Video
from datasets_spec.walk import file_without_row

SHARD_SIZE = 256
"""Videos of a shard of a build with its defaults."""
MISSING_SHARDS = 3
"""Whole shards without a file at which a build stops, unless --accept-missing says otherwise."""


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
    missing_shards: int = 0
    """Whole shards of these, for videos in the order of their ids."""
    empty: tuple[str, ...] = ()
    """Files of zero bytes; they become rows of status decode_error."""
    problems: tuple[Problem, ...] = ()
    """Lines, and groups in several splits, that a build refuses."""
    error: str | None = None
    """Why the split could not be read at all."""

    @property
    def num_found(self) -> int:
        """Videos whose file is there."""
        return self.num_videos - len(self.missing)

    def obstacles(self) -> list[str]:
        """Why a build of this split would be refused, whatever its options."""
        if self.error is not None:
            return [self.error]
        crossing = self.of_kind("crossing_groups")
        number = len(self.problems) - len(crossing)
        if number:
            lines = "1 unusable line" if number == 1 else f"{number} unusable lines"
            return [f"split {self.split!r} has {lines}", *crossing]
        return crossing if self.num_videos else [f"split {self.split!r} lists no videos"]

    def of_kind(self, kind: str) -> list[str]:
        """Messages of the problems of a kind."""
        return [problem.message for problem in self.problems if problem.kind == kind]


@dataclass(frozen=True)
class Alike:
    """Files of one content."""

    paths: tuple[str, ...]
    """Ascending."""
    num_labels: int
    """Different labels that the videos have; at most one of them is right."""
    splits: tuple[str, ...]
    """Splits of one partition in which these files are, where they are in several: a leak."""

    def __str__(self) -> str:
        labels = f" under {self.num_labels} labels" if self.num_labels > 1 else ""
        splits = f" in splits {' and '.join(self.splits)}" if self.splits else ""
        return f"{' = '.join(self.paths)}{labels}{splits}"


@dataclass(frozen=True, kw_only=True)
class DatasetCheck:
    """What `check_dataset` found."""

    dataset: str
    data_root: str
    num_classes: int
    splits: tuple[SplitCheck, ...]
    built: tuple[str, ...]
    """Splits that a build was asked about: those that were named, else the one it takes itself."""
    no_default: str | None = None
    """Why a build must be told its split; None if it need not, or was."""
    class_problems: tuple[Problem, ...] = ()
    """Lines of other splits that a build refuses since it gathers the class names from them."""
    skipped: tuple[Skipped, ...] = ()
    """Files and folders that give no row."""
    overlaps: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Ids listed in two splits, under names such as `train+test`; a leak, though no build minds."""
    alike: tuple[Alike, ...] = ()
    """Different files with the same content; a build takes each for a video of its own."""
    agreement: ClassAgreement | None = None
    """None if no checkpoint was given."""
    accept_classes: bool = False
    """Whether a checkpoint whose class names disagree is accepted, as `--accept-classes` says."""

    def obstacles(self) -> list[str]:
        """What would break a build, in words; empty if nothing would."""
        found = [line for split in self.splits for line in split.obstacles()]
        found += [problem.message for problem in self.class_problems]
        found += [] if self.no_default is None else [self.no_default]
        for split in self.splits:
            if split.num_unlabelled and split.split in self.built:
                found.append(
                    f"{split.num_unlabelled} of {split.num_videos} videos of split {split.split!r} "
                    "have no label to explain (--target predicted needs none)"
                )
        for split in self.splits:
            if split.split in self.built and split.num_videos and not split.num_found:
                where = "where the specification's patterns say"
                found.append(f"not one video file of split {split.split!r} is {where}")
            elif split.split in self.built and split.missing_shards >= MISSING_SHARDS:
                found.append(
                    f"{split.missing_shards} times {SHARD_SIZE} videos of split {split.split!r} in "
                    "a row are missing (--accept-missing)"
                )
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
        sizes: whether to look for files of zero bytes and of the same content, which costs one
            `stat` per video, and for files of equal size a look into them.
        accept_classes: whether class names may disagree with the checkpoint's.

    Raises:
        DatasetSpecError: no data root, an unknown split, no annotations, or no class list.
    """
    root = check_root(data_root)
    asked = [canonical_split(spec, split) for split in splits]
    chosen = asked or list_splits(spec, root)
    if not chosen:
        looked = ", ".join(name for names in spec.splits.values() for name in names)
        raise DatasetSpecError(f"{spec.name}: no annotations in {root}; looked for {looked}")
    built, no_default = asked, None
    if not asked:
        try:
            built = [default_split(spec, root, "train")]
        except DatasetSpecError as error:
            no_default = str(error)
    found = _Found()
    names = label_names(spec, root, found.add)
    listing = Listing(root)
    reads = [_read(spec, root, split, names, listing, sizes) for split in chosen]
    for read in reads:
        found.skipped |= read.skipped
    if not asked:
        found.skipped |= dict.fromkeys(_unlisted(spec, reads, listing))
    known = {problem.message for read in reads for problem in read.check.problems}
    return DatasetCheck(
        dataset=spec.name,
        data_root=str(root),
        num_classes=len(names),
        splits=tuple(read.check for read in reads),
        built=tuple(built),
        no_default=no_default,
        class_problems=tuple(p for p in found.problems if p.message not in known),
        skipped=tuple(found.skipped),
        overlaps=_overlaps({r.check.split: {v.video_id for v in r.videos} for r in reads}),
        alike=_alike(root, reads),
        agreement=None
        if checkpoint_classes is None
        else compare_classes(names, checkpoint_classes),
        accept_classes=accept_classes,
    )


class _Found:
    """What reading reports, collected."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.skipped: dict[Skipped, None] = {}  # an ordered set

    def add(self, found: Problem | Skipped) -> None:
        """Receive a report."""
        if isinstance(found, Problem):
            self.problems.append(found)
        else:
            self.skipped[found] = None


@dataclass(frozen=True)
class _Read:
    """A split that was read."""

    check: SplitCheck
    videos: list[Video]
    skipped: dict[Skipped, None]
    sizes: dict[str, int] = field(default_factory=dict)
    """Path to bytes of the files that hold some, if it was asked."""


def _read(
    spec: DatasetSpec,
    root: Path,
    split: str,
    names: list[str],
    listing: Listing,
    sizes: bool,
) -> _Read:
    found = _Found()
    try:
        listed = read_rows(spec, root, split, found.add)
        rows = usable_rows(spec, listed, names, found.add)
        report_crossing_groups(spec, root, split, rows, found.add)
        videos = videos_of(spec, rows, names, split, listing)
    except DatasetSpecError as error:
        return _Read(SplitCheck(split=split, error=str(error)), [], found.skipped)
    missing, empty = [], []
    found_in: set[int] = set()  # shards
    bytes_of: dict[str, int] = {}
    for number, video in enumerate(videos):
        size = 1 if listing.has_file(video.path) else None
        if size is not None and sizes:
            size = _size(root / video.path)
        if size is None:
            missing.append(video.path)
            continue
        found_in.add(number // SHARD_SIZE)
        if size == 0:
            empty.append(video.path)
        elif sizes:
            bytes_of[video.path] = size
    check = SplitCheck(
        split=split,
        num_videos=len(videos),
        num_unlabelled=sum(video.label is None for video in videos),
        missing=tuple(missing),
        missing_shards=-(-len(videos) // SHARD_SIZE) - len(found_in),
        empty=tuple(empty),
        problems=tuple(found.problems),
    )
    return _Read(check, videos, found.skipped, bytes_of)


def _alike(root: Path, reads: Sequence[_Read]) -> tuple[Alike, ...]:
    bytes_of = {path: size for read in reads for path, size in read.sizes.items()}
    labels: dict[str, set[int | None]] = {}
    splits: dict[str, set[str]] = {}
    for read in reads:
        for video in read.videos:
            labels.setdefault(video.path, set()).add(video.label)
            splits.setdefault(video.path, set()).add(read.check.split)
    return tuple(
        Alike(
            paths,
            num_labels=len(set().union(*(labels[path] for path in paths)) - {None}),
            splits=_crossed([splits[path] for path in paths]),
        )
        for paths in same_content(root, bytes_of)
    )


def _crossed(splits: Sequence[set[str]]) -> tuple[str, ...]:
    """The splits of several files, where one is in another split of a partition than another."""
    pairs = ((a, b) for one in splits for other in splits for a in one for b in other)
    found = {name for a, b in pairs if a != b and _are_apart(a, b) for name in (a, b)}
    return tuple(sorted(found))


def _unlisted(spec: DatasetSpec, reads: Sequence[_Read], listing: Listing) -> list[Skipped]:
    """Files beside the videos that no annotation lists; other folders are not looked into.

    Where there is no annotation (`folder`), reading has reported every file.
    """
    if spec.format == "folder" or any(read.check.error is not None for read in reads):
        return []
    videos = {video.path for read in reads for video in read.videos}
    annotations = [name for names in spec.splits.values() for name in names] + [*spec.labels.files]
    found = []
    for folder in sorted({v.rpartition("/")[0] for v in videos if listing.has_file(v)}):
        for name in sorted(listing.files(folder)):
            path = join(folder, name)
            if path not in videos and not any(fnmatch(path, a) for a in annotations):
                reason = file_without_row(listing.root / path, listing.root).reason
                found.append(Skipped(as_utf8(path), f"listed nowhere, {reason}"))
    return found


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
    splits = [*ids]
    for number, one in enumerate(splits):
        for other in splits[number + 1 :]:
            shared = ids[one] & ids[other]
            if shared and _are_apart(one, other):
                found[f"{one}+{other}"] = tuple(sorted(shared))
    return found


def _are_apart(one: str, other: str) -> bool:
    """Whether two splits shall share no video."""
    return "all" not in (one, other) and _fold(one) == _fold(other)


def _fold(split: str) -> str:
    """The number a split name ends in."""
    return split[len(split.rstrip("0123456789")) :]
