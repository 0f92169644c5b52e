"""The clips of an adaptation: decoded once, kept as one array, cut into batches for any method."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from pipeline.backbones.base import Backbone
from pipeline.clips.plan import units as list_units
from pipeline.clips.views import View
from pipeline.config import ClipConfig
from pipeline.decode import DecodeRequest
from pipeline.errors import ConfigError
from pipeline.standin.loop import OnProgress, decode_into
from pipeline.store.root import write_file
from selector.methods.base import ClipBatch
from selector.training.split import is_held_out

_FRAMES, _WRITTEN_FOR = "frames.npy", "clips.json"


@dataclass(frozen=True, eq=False)
class Clips:
    """The centre clip of each video."""

    frames: npt.NDArray[np.uint8]
    """(n, num_frames, height, width, 3), memory-mapped."""
    rows: npt.NDArray[np.int64]
    """Which of `frames` these clips are, ascending."""
    labels: npt.NDArray[np.int64]
    """Of these clips, -1 where unknown."""
    video_ids: tuple[str, ...]
    """Of these clips."""
    paths: tuple[str, ...]
    """Video files of these clips."""
    units: tuple[str, ...]
    """What of these clips is alike and stays together; see `pipeline.clips.plan.units`."""

    def __len__(self) -> int:
        return len(self.rows)

    def some(self, at: npt.NDArray[np.int64]) -> Clips:
        """Those at some positions."""
        return Clips(
            self.frames,
            self.rows[at],
            self.labels[at],
            tuple(self.video_ids[i] for i in at),
            tuple(self.paths[i] for i in at),
            tuple(self.units[i] for i in at),
        )

    def split(self, fraction: float) -> tuple[Clips, Clips]:
        """Those that train and those held out; every unit is on the same side in every run.

        Raises:
            ConfigError: one side is empty.
        """
        held = np.array([is_held_out(unit, fraction) for unit in self.units], np.bool_)
        if held.all() or not held.any():
            together = "" if self.units == self.video_ids else " (those of a group stay together)"
            raise ConfigError(
                f"{fraction:.0%} of {len(self)} videos leave {int((~held).sum())} to train on and "
                f"{int(held.sum())} to judge by{together}, and both need one: give more videos, or "
                "another --held-out"
            )
        return self.some(np.flatnonzero(~held)), self.some(np.flatnonzero(held))

    def batch(self, backbone: Backbone, at: npt.NDArray[np.int64]) -> ClipBatch:
        """The clips at some positions, embedded; patch embeddings are frozen."""
        frames = np.array(self.frames[self.rows[at]])
        with torch.no_grad():
            pixel_values = backbone.pixel_values(frames)
            tokens = backbone.embed(pixel_values)
        return ClipBatch(
            backbone=backbone,
            frames=frames,
            pixel_values=pixel_values,
            tokens=tokens,
            labels=torch.from_numpy(self.labels[at]).to(backbone.device),
            clip_ids=tuple(self.rows[at].tolist()),
            video_ids=tuple(self.video_ids[i] for i in at),
            paths=tuple(self.paths[i] for i in at),
            views=(View(),) * len(at),
        )

    def batches(self, backbone: Backbone, size: int) -> Iterator[ClipBatch]:
        """All of them in order, `size` at a time."""
        for first in range(0, len(self), size):
            yield self.batch(backbone, np.arange(first, min(first + size, len(self))))


def load_clips(
    plan: pa.Table,
    config: ClipConfig,
    backbone: Backbone,
    data_root: Path,
    cache: Path,
    workers: int,
    on_progress: OnProgress,
) -> Clips:
    """The clips of a plan of one view a video, decoded into `cache` at the first call.

    Raises:
        ConfigError: not one could be decoded, or the disk has no room for them.
    """
    written_for = cache / _WRITTEN_FOR
    side = backbone.image_size
    source = {
        "plan": config.plan_digest,
        "decoder": config.decoder,
        "sampling": config.sampling,
        "shape": [backbone.num_frames, side, backbone.short_side],
    }
    found = json.loads(written_for.read_text()) if written_for.is_file() else {}
    if found.get("source") != source:
        cache.mkdir(parents=True, exist_ok=True)
        written_for.unlink(missing_ok=True)
        _require_room(cache, plan.num_rows * backbone.num_frames * side * side * 3)
        requests = [
            DecodeRequest(
                path=str(data_root / path),
                sampling=config.sampling,
                decoder=config.decoder,
                **backbone.clip_format,
            )
            for path in plan["path"].to_pylist()
        ]
        decoded = decode_into(cache / _FRAMES, requests, workers, on_progress)
        found = {"source": source, "positions": [clip.position for clip in decoded]}
        write_file(written_for, json.dumps(found).encode())  # last: the array is complete
    positions = found["positions"]
    if not positions:
        raise ConfigError(
            f"not one of the {plan.num_rows} videos of {config.dataset}/{config.split} in "
            f"{data_root} could be decoded"
        )
    kept = plan.take(pa.array(positions))
    return Clips(
        np.load(cache / _FRAMES, mmap_mode="r"),
        np.arange(len(positions)),
        kept["label"].to_numpy().astype(np.int64),
        tuple(kept["video_id"].to_pylist()),
        tuple(str(data_root / path) for path in kept["path"].to_pylist()),
        tuple(list_units(kept)),
    )


def _require_room(cache: Path, num_bytes: int) -> None:
    free = shutil.disk_usage(cache).free
    if num_bytes > free:
        raise ConfigError(
            f"the decoded clips need {num_bytes / 1e9:.1f} GB in {cache}, and {free / 1e9:.1f} GB "
            "are free there: take fewer videos (--limit)"
        )
