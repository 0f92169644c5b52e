"""Tiny datasets and what it takes to build a store from them, for tests of whole builds."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config import OracleConfig, RunConfig
from pipeline.oracle.build import BuildResult, build
from pipeline.store.layout import RUNS
from tests.videos import write_video

NUM_CLASSES = 5  # of the `tiny_backbone` fixture
SHARD_SIZE = 4


def make_dataset(folder: Path, num_videos: int, *, missing: tuple[int, ...] = ()) -> Path:
    """Videos of 32x24 pixels and 8 frames of noise, listed in `videos.csv`; some not there."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["path,label"]
    for number in range(num_videos):
        name = f"v{number:03d}.mp4"
        lines.append(f"{name},class {number % NUM_CLASSES}")
        if number not in missing:
            make_video(folder / name, number)
    # Every class must occur, or the sorted class list would be shorter than the checkpoint's.
    assert num_videos >= NUM_CLASSES
    (folder / "videos.csv").write_text("\n".join(lines) + "\n")
    return folder


def make_video(path: Path, seed: int) -> None:
    """A short video that is different for every seed."""

    def noise(number: int, height: int, width: int) -> np.ndarray:
        rng = np.random.default_rng([seed, number])
        small = rng.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
        return small.repeat(8, axis=0).repeat(8, axis=1)

    write_video(path, 8, 24, 32, "mpeg4", frame=noise)


def ask(backbone: Path, **changes: Any) -> OracleConfig:
    """Shards of 4 clips, 3 embeddings each."""
    fields: dict[str, Any] = {
        "dataset": "csv",
        "split": "all",
        "backbone": str(backbone),
        "shard_size": SHARD_SIZE,
        "embeddings_per_clip": 3,
    }
    return OracleConfig(**(fields | changes))


def make_run_config(data: Path, **changes: Any) -> RunConfig:
    """In this process, decoding included; batches of 2, so that a shard has two."""
    fields: dict[str, Any] = {"data_root": str(data), "decode_workers": 0, "batch_size": 2}
    return RunConfig(**(fields | changes))


def run_build(
    store: Path | str,
    data: Path,
    backbone: Path,
    *,
    asked: dict[str, Any] | None = None,
    run: dict[str, Any] | None = None,
    **options: Any,
) -> BuildResult:
    """`build` with the defaults above."""
    return build(
        ask(backbone, **(asked or {})),
        str(store),
        make_run_config(data, **(run or {})),
        **options,
    )


def file_hashes(store: Path) -> dict[str, str]:
    """SHA-256 of every committed file; side logs and locks are not part of a store's data."""
    paths = [path for path in sorted(store.rglob("*")) if path.is_file()]
    names = {path.relative_to(store).as_posix(): path for path in paths}
    return {
        name: hashlib.sha256(path.read_bytes()).hexdigest()
        for name, path in names.items()
        if not name.startswith(f"{RUNS}/")
    }
