"""The training clips, decoded once and kept as plain arrays: every epoch reads them again."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datasets_spec import load_spec, read_videos
from datasets_spec.synthetic.actors import NO_ACTION, Body, read_actors, token_cover
from datasets_spec.synthetic.benchmark import RECIPE
from pipeline.clips.views import frame_indices
from pipeline.decode import DecodeRequest
from pipeline.errors import ConfigError
from pipeline.standin.config import BackboneConfig
from pipeline.standin.loop import OnProgress, decode_into
from pipeline.store.root import write_file

COVERED = 0.3
"""Share of a token an actor must cover to count as there."""


@dataclass(frozen=True)
class Clips:
    """The centre clips of one split."""

    frames: np.ndarray
    """uint8 `(n, num_frames, height, width, 3)`, memory-mapped."""
    labels: np.ndarray
    """int64 `(n,)`."""
    actions: np.ndarray
    """int8 `(n, t, y, x)`: class id of the action each token shows, or `NO_ACTION`."""

    def __len__(self) -> int:
        return len(self.labels)


def load_clips(
    data_root: Path,
    split: str,
    cache: Path,
    config: BackboneConfig,
    workers: int,
    on_progress: OnProgress,
) -> Clips:
    """The clips of a split, decoded into `cache` at the first call.

    Raises:
        DatasetSpecError: `data_root` holds no rendered benchmark.
        ConfigError: not one of its videos could be decoded.
    """
    files = [cache / f"{split}-{name}.npy" for name in ("frames", "labels", "actions")]
    written_for = cache / f"{split}.json"
    # The recipe too: the folder may have been rendered anew, by a later version or another seed.
    recipe = data_root / RECIPE
    source = json.dumps(
        {
            "data_root": str(data_root.resolve()),
            "recipe": recipe.read_text() if recipe.is_file() else None,
            "shape": _shape(config),
        }
    )
    if not written_for.is_file() or written_for.read_text() != source:
        cache.mkdir(parents=True, exist_ok=True)
        written_for.unlink(missing_ok=True)
        _decode(data_root, split, files, config, workers, on_progress)
        write_file(written_for, source.encode())  # last: the arrays are complete
    frames, labels, actions = (np.load(path, mmap_mode="r") for path in files)
    return Clips(frames[: len(labels)], np.array(labels), np.array(actions))


def _shape(config: BackboneConfig) -> list[int]:
    return [config.num_frames, config.image_size, *config.grid]


def _decode(
    data_root: Path,
    split: str,
    files: list[Path],
    config: BackboneConfig,
    workers: int,
    on_progress: OnProgress,
) -> None:
    videos = read_videos(load_spec("synthetic"), data_root, split)
    bodies = read_actors(data_root, split)
    side = config.image_size
    requests = [
        DecodeRequest(
            path=str(data_root / video.path),
            num_frames=config.num_frames,
            size=side,
            short_side=side,
        )
        for video in videos
    ]
    decoded = decode_into(files[0], requests, workers, on_progress)
    labels = [videos[found.position].label for found in decoded]
    actions = [
        token_actions(bodies[videos[found.position].video_id], found.num_frames_total, config)
        for found in decoded
    ]
    if not labels:
        raise ConfigError(f"no video of split {split!r} in {data_root} could be decoded")
    np.save(files[1], np.array(labels, np.int64))
    np.save(files[2], np.stack(actions))


def token_actions(bodies: list[Body], num_frames_total: int, config: BackboneConfig) -> np.ndarray:
    """Class id of the action each token shows, int8 `(t, y, x)`; the labelled actor goes first."""
    shown = np.full(config.grid, NO_ACTION, np.int8)
    sampled = frame_indices(num_frames_total, config.num_frames)
    for body in sorted(bodies, key=lambda body: -body.actor):
        if body.action != NO_ACTION:
            shown[token_cover(body, sampled, config.grid) > COVERED] = body.action
    return shown
