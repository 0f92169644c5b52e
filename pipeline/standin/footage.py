"""Training and validation clips of any dataset: checked, then decoded once into plain arrays."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from datasets_spec import DatasetSpec
from datasets_spec.read import read_split
from datasets_spec.types import Video
from pipeline.decode import DecodeRequest
from pipeline.errors import ConfigError
from pipeline.standin.loop import OnProgress, decode_into
from pipeline.store.root import write_file

logger = logging.getLogger(__name__)

_SHOWN = 5


@dataclass(frozen=True)
class Footage:
    """The centre clip of each video of one split."""

    frames: np.ndarray
    """uint8 `(n, num_frames, side, side, 3)`, memory-mapped."""
    labels: np.ndarray
    """int64 `(n,)`; -1 where unknown."""

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Plan:
    """Which videos train and which validate."""

    train: list[Video]
    validation: list[Video]
    label_names: list[str]

    @property
    def digest(self) -> str:
        """Hex SHA-256 of ids, paths, labels and class names."""
        said = [
            [[v.video_id, v.path, v.label] for v in videos]
            for videos in (self.train, self.validation)
        ]
        return hashlib.sha256(json.dumps([said, self.label_names]).encode()).hexdigest()


def read_plan(spec: DatasetSpec, data_root: Path, train: str, validation: str) -> Plan:
    """The videos of both splits, checked against each other.

    Raises:
        DatasetSpecError: the dataset, a split or its annotations, or a group in several splits.
        ConfigError: a video in both splits, a class without training videos, a video
            without a label; names them.
    """
    one, other = (read_split(spec, data_root, split) for split in (train, validation))
    where = f"{spec.name} in {data_root}"
    unknown = [v.video_id for v in (*one.videos, *other.videos) if v.label is None]
    if unknown:
        raise ConfigError(f"{where}: videos without a label cannot train: {_some(unknown)}")
    both = {v.path for v in one.videos} & {v.path for v in other.videos}
    if both:
        raise ConfigError(
            f"{where}: in split {train!r} and in {validation!r}: {_some(both)}; "
            "name two splits that share no video"
        )
    require_every_class(one.label_names, [v.label for v in one.videos if v.label is not None])
    return Plan(one.videos, other.videos, one.label_names)


def require_every_class(label_names: Sequence[str], labels: Sequence[int]) -> None:
    """Refuses classes without training videos.

    Raises:
        ConfigError: names them.
    """
    missing = [name for i, name in enumerate(label_names) if i not in set(labels)]
    if missing:
        raise ConfigError(
            f"classes without training videos: {_some(missing)}; give them some, or list only the "
            "classes that have"
        )


def load_footage(
    videos: Sequence[Video],
    data_root: Path,
    cache: Path,
    name: str,
    request: DecodeRequest,
    workers: int,
    on_progress: OnProgress,
) -> Footage:
    """The clips of some videos, decoded into `cache` at the first call.

    Videos that do not decode, and those too short for the clip without repeated frames, are left
    out and named in a warning.

    Args:
        videos: labelled or not.
        data_root: their folder.
        cache: folder of the arrays.
        name: of the arrays.
        request: what is decoded of each video; its path is replaced.
        workers: decoder processes.
        on_progress: see `OnProgress`.

    Raises:
        ConfigError: no video is left.
    """
    written_for = cache / f"{name}.json"
    files = [data_root / video.path for video in videos]
    source = {
        "videos": [[str(file.resolve()), *_stamp(file)] for file in files],
        "clip": [request.num_frames, request.size, request.short_side, request.sampling],
    }
    found = json.loads(written_for.read_text()) if written_for.is_file() else {}
    if found.get("source") != source:
        cache.mkdir(parents=True, exist_ok=True)
        written_for.unlink(missing_ok=True)
        requests = [replace(request, path=str(file)) for file in files]
        decoded = decode_into(cache / f"{name}.npy", requests, workers, on_progress)
        padded = [request.is_padded(clip.num_frames_total) for clip in decoded]
        kept = [row for row, short in enumerate(padded) if not short]
        if decoded:
            frames = np.load(cache / f"{name}.npy", mmap_mode="r+")
            for place, row in enumerate(kept):
                if place < row:  # close the gaps that short ones left
                    frames[place] = frames[row]
            frames.flush()
        found = {
            "source": source,
            "kept": [decoded[row].position for row in kept],
            "short": [
                f"{videos[clip.position].video_id} ({clip.num_frames_total} frames)"
                for clip, short in zip(decoded, padded, strict=True)
                if short
            ],
        }
        write_file(written_for, json.dumps(found).encode())  # last: the array is complete
    short, kept = found["short"], found["kept"]
    clip = f"{request.num_frames} frames by {request.sampling}"
    if short:
        logger.warning(
            "left out %d of %d %s videos, too short for %s: %s",
            len(short), len(videos), name, clip, ", ".join(short),
        )  # fmt: skip
    if not kept:
        raise ConfigError(
            f"not one of {len(videos)} {name} videos in {data_root} decodes and is long enough for "
            f"{clip}; take a smaller --sampling stride"
        )
    known = [videos[position].label for position in kept]
    labels = np.array([-1 if label is None else label for label in known], np.int64)
    return Footage(np.load(cache / f"{name}.npy", mmap_mode="r")[: len(labels)], labels)


def _stamp(file: Path) -> list[int]:
    """Size and time of a file, so that a replaced video is decoded anew; zeros where missing."""
    if not file.is_file():
        return [0, 0]
    stat = file.stat()
    return [stat.st_size, stat.st_mtime_ns]


def _some(names: set[str] | list[str]) -> str:
    ordered = sorted(names)
    rest = len(ordered) - _SHOWN
    return ", ".join(ordered[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
