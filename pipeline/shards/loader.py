"""A worker's supply of clips: a shard's videos decoded ahead and handed over batch by batch.

A position is a row's place in its shard. Batches are cut by position, and a slot whose clip is not
there stays black: what is in a batch never depends on what failed.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.backbones import Backbone
from pipeline.clips.views import View
from pipeline.config import ClipConfig, RunConfig
from pipeline.decode import DecodedVideo, DecodePool, DecodeRequest, check_decoder
from pipeline.errors import DecodeError, UnfitWorkerError


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

    def split(self, size: int) -> Iterator[Batch]:
        """The slots in runs of at most `size`; a run without any clip is left out."""
        for first in range(0, len(self.clips), size):
            part = Batch(self.start + first, self.clips[first : first + size])
            part.facts.update((p, self.facts[p]) for p in part.positions if p in self.facts)
            if part.facts:
                yield part


class ClipLoader:
    """Decodes for one worker; may be used by two threads.

    Args:
        config: which frames and views, by which decoder.
        run_config: speed settings and limits.
        backbone: the shape of its clips.

    Raises:
        ConfigError: the decoder does not work on this machine.
        UnfitWorkerError: see `check_known_videos`.
    """

    def __init__(self, config: ClipConfig, run_config: RunConfig, backbone: Backbone) -> None:
        check_decoder(config.decoder)
        self._config, self._run_config = config, run_config
        self.check_known_videos()
        self._template = {
            **backbone.clip_format,
            "sampling": config.sampling,
            "decoder": config.decoder,
            "timeout_s": run_config.decode_timeout_s,
            "max_pixels": run_config.max_pixels,
            "max_frames": run_config.max_frames,
        }
        self._clip_shape = (backbone.num_frames, backbone.image_size, backbone.image_size, 3)
        accept_killed = run_config.accept_killed
        self._pool = DecodePool(run_config.decode_workers, accept_killed=accept_killed)
        # A decoder within the worker may crash it; an isolated attempt never has one.
        self._safe_pool = (
            self._pool if run_config.decode_workers else DecodePool(1, accept_killed=accept_killed)
        )

    def batches(
        self,
        plan: Mapping[str, Sequence[Any]],
        wanted: Sequence[int],
        on_failure: Callable[[int, DecodeError], None],
        *,
        isolated: bool = False,
    ) -> Iterator[Batch]:
        """Decode some clips of a shard; the decoders begin with this call, not at the first batch.

        Args:
            plan: columns of the shard's rows of the plan.
            wanted: positions, ascending.
            on_failure: called with the position of every clip that is in no batch, and why.
            isolated: whether this process must not decode, as that may crash it.
        """
        batch_size = self._run_config.batch_size
        groups = self.groups(plan, wanted)
        pool = self._safe_pool if isolated else self._pool
        decoded = pool.imap((group.request for group in groups), self._look_ahead())
        num_clips = len(plan["video_id"])
        return assemble(groups, decoded, num_clips, batch_size, self._clip_shape, on_failure)

    def check_known_videos(self) -> None:
        """See whether the dataset is still where the run has seen it.

        Raises:
            UnfitWorkerError: a video that the run could read cannot be read here.
        """
        if self._run_config.accept_missing:
            return
        for path in self._run_config.known_videos:
            if problem := unreadable(path):
                raise UnfitWorkerError(
                    f"{path}, which this run could read, cannot be read now on "
                    f"{socket.gethostname()} ({problem}): is {self._run_config.data_root} mounted "
                    "there? Nothing is recorded of such videos. Mend it, then run the same command "
                    "again: it resumes; --accept-missing goes on without them"
                )

    def every_batch(
        self,
        plan: Mapping[str, Sequence[Any]],
        on_failure: Callable[[int, DecodeError], None],
    ) -> Iterator[Batch]:
        """Decode all clips of some rows of a plan, outside of any shard.

        Args:
            plan: columns of the rows, sorted by video; a position is a row's place in them.
            on_failure: called with the position of every clip that is in no batch, and why.
        """
        num_clips, batch_size = len(plan["clip_id"]), self._run_config.batch_size
        groups = self.groups(plan, range(num_clips))
        decoded = self._pool.imap((group.request for group in groups), self._look_ahead())
        return assemble(groups, decoded, num_clips, batch_size, self._clip_shape, on_failure)

    def groups(self, plan: Mapping[str, Sequence[Any]], wanted: Sequence[int]) -> list[Group]:
        """What the decoders are asked for: one request per video; see `batches`."""
        data_root = self._run_config.data_root
        return group_by_video(plan, wanted, data_root, self._config.views, self._template)

    def close(self) -> None:
        """Stop the decoder processes."""
        self._pool.close()
        self._safe_pool.close()

    def _look_ahead(self) -> int:
        """Videos decoded ahead: two batches of them, or two per decoder, whichever is more."""
        batches = -(-2 * self._run_config.batch_size // self._config.num_views)
        return max(batches, 2 * self._run_config.decode_workers)


NUM_KNOWN = 3
_NUM_PROBED = 64


def find_known_videos(data_root: str, paths: Sequence[str]) -> tuple[str, ...]:
    """A few videos that can be read here and now, for `RunConfig.known_videos`.

    Args:
        data_root: folder the paths are relative to.
        paths: of the plan; those looked at lie evenly among them.
    """
    every = max(1, len(paths) // _NUM_PROBED)
    found = (str(Path(data_root) / path) for path in dict.fromkeys(paths[::every]))
    return tuple(islice((path for path in found if not unreadable(path)), NUM_KNOWN))


def unreadable(path: str) -> str | None:
    """Why not even the first byte of a file can be read; None if it can."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a named pipe would wait
        try:
            os.read(descriptor, 1)
        finally:
            os.close(descriptor)
    except (OSError, ValueError) as error:
        return getattr(error, "strerror", None) or str(error)
    return None


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
