"""From the rows of a shard to requests for the decoder, and from its answers to batches.

A position is a row's place in its shard. Batches are cut by position, and a slot whose clip is not
there stays black: what is in a batch never depends on what failed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.clips.views import View
from pipeline.decode import DecodedVideo, DecodeRequest
from pipeline.errors import DecodeError


@dataclass(frozen=True)
class Group:
    """The wanted rows of one video within a shard: decoded in one pass."""

    positions: tuple[int, ...]
    request: DecodeRequest


@dataclass(frozen=True)
class Batch:
    """Consecutive positions of a shard.

    Attributes:
        start: position of the first slot.
        clips: uint8 (B, T, H, W, 3); black where there is no clip.
        facts: for each position with a clip, what the store keeps about its video.
    """

    start: int
    clips: npt.NDArray[np.uint8]
    facts: dict[int, dict[str, Any]] = field(default_factory=dict)

    @property
    def positions(self) -> range:
        """All slots, filled or not."""
        return range(self.start, self.start + len(self.clips))

    def only(self, positions: Collection[int]) -> Batch:
        """The same slots with these clips alone, all others black."""
        if len(positions) == len(self.facts):
            return self
        clips = np.zeros_like(self.clips)
        slots = [position - self.start for position in positions]
        clips[slots] = self.clips[slots]
        return Batch(self.start, clips, {position: self.facts[position] for position in positions})


def group_by_video(
    plan: Mapping[str, Sequence[Any]],
    wanted: Iterable[int],
    data_root: str,
    num_views: tuple[int, int],
    template: Mapping[str, Any],
) -> list[Group]:
    """One request per video, in plan order.

    Args:
        plan: columns of the shard's rows, sorted by video.
        wanted: positions to decode, ascending.
        data_root: folder the plan's paths are relative to.
        num_views: (segments, crops) per video.
        template: the other fields of `DecodeRequest`.
    """
    groups = []
    for _, found in groupby(wanted, key=lambda position: plan["video_id"][position]):
        positions = tuple(found)
        views = tuple(View(plan["segment"][p], plan["crop"][p], *num_views) for p in positions)
        path = str(Path(data_root) / plan["path"][positions[0]])
        groups.append(Group(positions, DecodeRequest(path=path, views=views, **template)))
    return groups


def assemble(
    groups: Sequence[Group],
    decoded: Iterator[DecodedVideo | DecodeError],
    num_clips: int,
    batch_size: int,
    clip_shape: tuple[int, int, int, int],
    on_failure: Callable[[int, DecodeError], None],
) -> Iterator[Batch]:
    """Fill the batches of a shard as its videos arrive; a batch without any clip is left out.

    Args:
        groups: what was asked for.
        decoded: the answers, in the same order.
        num_clips: rows of the shard.
        batch_size: slots per batch; the last one may have fewer.
        clip_shape: (T, H, W, 3).
        on_failure: called with the position of each clip whose video failed.
    """
    arrivals = _by_position(groups, decoded)
    positions = iter([position for group in groups for position in group.positions])
    position = next(positions, None)
    for start in range(0, num_clips, batch_size):
        stop = min(start + batch_size, num_clips)
        batch = Batch(start, np.zeros((stop - start, *clip_shape), np.uint8))
        while position is not None and position < stop:
            video, number = next(arrivals)
            if isinstance(video, DecodeError):
                on_failure(position, video)
            else:
                batch.clips[position - start] = video.clips[number]
                batch.facts[position] = _facts(video)
            position = next(positions, None)
        if batch.facts:
            yield batch


def _by_position(
    groups: Sequence[Group], decoded: Iterator[DecodedVideo | DecodeError]
) -> Iterator[tuple[DecodedVideo | DecodeError, int]]:
    for group, video in zip(groups, decoded, strict=True):
        for number in range(len(group.positions)):
            yield video, number


def _facts(video: DecodedVideo) -> dict[str, Any]:
    """What the store keeps of a decoded video; not its pixels, which would fill the memory."""
    return {
        "num_frames_total": video.num_frames_total,
        "padded": video.padded,
        "damaged": video.damaged,
        "decoder": video.decoder,
        "decoder_version": video.decoder_version,
    }
