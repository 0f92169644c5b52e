"""From a dataset's videos to the clips of a store and their shards.

The plan is a function of the videos and the options alone: never of the order in which a folder was
listed, and never of time. It is written once and then read by every run.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from datasets_spec.types import Video
from pipeline.clips.views import list_views
from pipeline.errors import ConfigError
from pipeline.store.layout import GROUP, plan_schema

UNKNOWN_LABEL = -1


def build_plan(
    videos: Iterable[Video], views: tuple[int, int], shard_size: int, limit: int | None = None
) -> pa.Table:
    """List every clip, sorted by (video_id, segment, crop).

    Args:
        videos: what the dataset lists; a missing file is listed too and becomes a failed row.
        views: (temporal segments, spatial crops) per video.
        shard_size: clips per shard; a shard may cut through the views of one video.
        limit: keep this many videos, an even sample whatever the order of the ids (in a dataset
            with a folder per class the first ids would all be of one class). A larger limit
            contains a smaller one.

    Returns:
        A table with `plan_schema`, with groups where a video has one; `clip_id` counts from 0.

    Raises:
        ConfigError: no video, an id that occurs twice, or shards of no size.
    """
    if not 1 <= shard_size <= np.iinfo(np.int32).max:
        raise ConfigError(f"shard_size must be a number of clips from 1, got {shard_size}")
    chosen = _sample(videos, limit)
    chosen.sort(key=lambda video: video.video_id)
    _check(chosen)
    grid = [(view.segment, view.crop) for view in list_views(*views)]
    per_video = len(grid)
    num_clips = len(chosen) * per_video
    clip_id = np.arange(num_clips, dtype=np.int32)
    # Rows repeat their video `per_video` times; numpy keeps this fast for a million clips.
    rows = np.repeat(np.arange(len(chosen)), per_video)

    def text(values: Sequence[str | None]) -> pa.Array:
        return pa.array(values, pa.string()).take(pa.array(rows))

    labels = [UNKNOWN_LABEL if v.label is None else v.label for v in chosen]
    segment, crop = np.tile(np.array(grid, dtype=np.int16), (len(chosen), 1)).T
    columns = {
        "clip_id": clip_id,
        "shard": clip_id // np.int32(shard_size),
        "video_id": text([v.video_id for v in chosen]),
        "path": text([v.path for v in chosen]),
        "label": np.array(labels, dtype=np.int16)[rows],
        "split": text([v.split for v in chosen]),
        "segment": np.ascontiguousarray(segment),
        "crop": np.ascontiguousarray(crop),
    }
    groups = [v.group for v in chosen]
    if known := any(group is not None for group in groups):
        columns[GROUP] = text(groups)
    return pa.table(columns, schema=plan_schema(known))


def plan_digest(plan: pa.Table) -> str:
    """Hex SHA-256 over what the plan says of each clip; the same on every machine.

    Shards are left out: `shard_size` is a field of the configuration.
    """
    digest = hashlib.sha256()
    names = ["video_id", "path", "label", "split", "segment", "crop"]
    # Only where there are some: a plan without them keeps the digest that it always had.
    for name in [*names, GROUP] if GROUP in plan.column_names else names:
        column = plan.column(name).combine_chunks()
        if pa.types.is_string(column.type):
            values = [None if value is None else value.encode() for value in column.to_pylist()]
            # Lengths before the text: ("ab", "c") must differ from ("a", "bc"); -1 for no group.
            lengths = np.array([-1 if v is None else len(v) for v in values], dtype="<i8")
            data = lengths.tobytes() + b"".join(value or b"" for value in values)
        else:
            data = column.to_numpy(zero_copy_only=False).astype("<i8").tobytes()
        digest.update(name.encode() + b"\0" + data)
    return digest.hexdigest()


def units(plan: pa.Table) -> list[str]:
    """What of each clip is one independent draw: its video's group if it has one, else the video.

    Clips of one unit are alike: they belong on one side of every split, and chance is over units.

    Args:
        plan: or any table with its `video_id` and, where the dataset says groups, `group`.
    """
    found = plan["video_id"]
    if GROUP in plan.column_names:
        found = pc.coalesce(plan[GROUP], found)
    named: list[str] = found.to_pylist()
    return named


def _sample(videos: Iterable[Video], limit: int | None) -> list[Video]:
    if limit is None:
        return list(videos)
    if limit < 1:
        raise ConfigError(f"limit must be at least 1 video, got {limit}")
    return sorted(videos, key=lambda v: hashlib.sha256(v.video_id.encode()).digest())[:limit]


def _check(videos: list[Video]) -> None:
    if not videos:
        raise ConfigError(
            "the dataset lists no video for this split; "
            "`lite-pipeline datasets check` says what it finds"
        )
    for before, video in itertools.pairwise(videos):
        if before.video_id == video.video_id:
            raise ConfigError(
                f"video {video.video_id!r} is listed twice (as {before.path} and {video.path}); "
                "a store needs every video once"
            )
