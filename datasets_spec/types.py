"""The nouns of this package: a video, a specification, and what can be wrong with an annotation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

SPLIT_ALIASES = ("validation", "val", "valid", "validate")
"""Spellings of the one split that every dataset names differently; the first is ours."""


def same_split(one: str, other: str) -> bool:
    """Whether two names mean the same split."""
    return one == other or (one in SPLIT_ALIASES and other in SPLIT_ALIASES)


@dataclass(frozen=True)
class Video:
    """One line of a dataset: what the plan makes clips of, whether its file exists or not."""

    video_id: str
    """The dataset's own id; unique within a split."""
    path: str
    """File relative to the data root, with forward slashes."""
    label: int | None
    """Class id, the index into `read_label_names`; None where the dataset holds it back."""
    split: str
    """Name of the split as the specification spells it."""
    group: str | None = None
    """What it was cut from, or who is in it; None where the annotation does not say."""


@dataclass(frozen=True)
class LabelSource:
    """Where the class names come from; their order is the class id."""

    source: str
    """`names` (listed in the YAML), `file` (a file beside the YAML), `data` (a file of the dataset)
    or `sorted` (every name the annotations use, sorted)."""
    names: tuple[str, ...] = ()
    """The names themselves, for `names`."""
    files: tuple[str, ...] = ()
    """Candidates, the first that exists is read: beside the YAML for `file`, below the data root
    for `data`."""


@dataclass(frozen=True, kw_only=True)
class DatasetSpec:
    """A dataset as its YAML describes it. `load_spec` makes and validates it."""

    name: str
    """What `--dataset` and the store call it."""
    format: str
    """Which reader understands its annotations."""
    title: str
    """One line for `lite-pipeline datasets`."""
    homepage: str
    """Where to get it."""
    citation: str
    """Whom to cite."""
    labels: LabelSource
    """Where class names and their order come from."""
    splits: dict[str, tuple[str, ...]]
    """Annotation files (for `folder`: folders) per split, candidates in order of preference,
    relative to the data root; glob patterns for `hmdb51`."""
    videos: tuple[str, ...]
    """Video path patterns relative to the data root, in order of preference; may use `{video_id}`,
    `{split}`, `{label}`, `{label_underscored}` and `{ext}`."""
    extensions: tuple[str, ...]
    """Values of `{ext}`, and what counts as a video for `folder`."""
    sampling: str
    """`uniform` over the whole video, or `stride:N`."""
    flip: bool
    """Whether a mirrored video keeps its class; training mirrors no other."""
    train_views: tuple[int, int]
    """(temporal segments, spatial crops) per video when building training data: what
    `build-oracle` takes by default."""
    eval_views: tuple[int, int]
    """(temporal segments, spatial crops) per video in the published evaluation: what `evaluate`
    takes by default."""
    eval_split: str
    """The split that papers report on."""
    source: Path
    """The YAML this came from."""


@dataclass(frozen=True)
class Problem:
    """Something in an annotation file that cannot be used."""

    kind: str
    """`malformed`, `duplicate`, `unknown_label` or `crossing_groups`."""
    message: str
    """File, line, value, and what was expected."""


@dataclass(frozen=True)
class Skipped:
    """A file or folder below the data root that gives no row; a build goes on and says so."""

    path: str
    """Relative to the data root."""
    reason: str


@dataclass(frozen=True)
class Row:
    """One usable line of an annotation file, before its label and its file are looked up."""

    video_id: str
    label: str | None
    """Class name, or None."""
    where: str
    """File and line, for messages."""
    path: str | None = None
    """File relative to the data root where the annotation says it; else the patterns decide."""
    number: int | None = None
    """Class id that the annotation gives beside the name, to hold against the class list."""
    label_id: int | None = None
    """The number that `label` is: the class of that name, else the class with that id."""
    group: str | None = None
    """What the video was cut from, or who is in it: videos of one group must not cross splits."""


Report = Callable[[Problem | Skipped], None]
"""Receives what gives no row: `read_split` raises a problem, `check_dataset` collects all."""


def ignore(found: Problem | Skipped) -> None:
    """Where it has been reported before, or is not what was asked for."""
    del found
