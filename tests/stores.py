"""Small stores with made-up numbers, the same on every machine, for tests that read one."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.clips.grid import TokenGrid
from pipeline.clips.plan import plan_digest
from pipeline.config import OracleConfig
from pipeline.errors import ClipStatus
from pipeline.store import layout
from pipeline.store.reader import Store, open_store
from pipeline.store.result import ShardResult
from pipeline.store.shard_writer import ShardWriter
from pipeline.store.writer import StoreWriter, create_store

GRID = TokenGrid(2, 3, 4)
HIDDEN_SIZE = 6
LABEL_NAMES = ["pushing", "pulling", "turning"]


def make_config(**changes: Any) -> OracleConfig:
    """A configuration of a tiny store: shards of 4 clips, 5 embeddings each."""
    config = OracleConfig(
        dataset="tiny",
        plan_digest="0" * 64,
        split="validation",
        backbone="synthetic",
        backbone_digest="1" * 64,
        sampling="uniform",
        num_segments=1,
        num_crops=1,
        layer="blocks.-1.output",
        embeddings_per_clip=5,
        shard_size=4,
    )
    return replace(config, **changes)


def make_plan(
    num_clips: int,
    shard_size: int,
    num_classes: int = len(LABEL_NAMES),
    groups: Sequence[str | None] | None = None,
) -> pa.Table:
    """A plan of one clip per video, labels in turn; each video's group, where there are any."""
    ids = np.arange(num_clips)
    plan = pa.table(
        {
            "clip_id": ids,
            "shard": ids // shard_size,
            "video_id": [f"video{i:04d}" for i in ids],
            "path": [f"videos/video{i:04d}.mp4" for i in ids],
            "label": ids % num_classes,
            "split": ["validation"] * num_clips,
            "segment": np.zeros(num_clips, int),
            "crop": np.zeros(num_clips, int),
        },
    ).cast(layout.PLAN_SCHEMA)
    if groups is None:
        return plan
    return plan.append_column(layout.GROUP, pa.array(groups, pa.string()))


def make_result(
    store: StoreWriter | Store,
    shard: int,
    failed: Mapping[int, ClipStatus] | None = None,
    like: Sequence[int] | None = None,
) -> ShardResult:
    """Numbers that depend on the clip id, or on `like[clip_id]`, alone, in any order of shards."""
    info = store.info
    rows = info.rows(shard)
    config = info.config
    result = ShardResult(
        rows.stop - rows.start,
        info.grid,
        config.embeddings_per_clip,
        info.hidden_size,
        info.suffixes,
    )
    for row, clip_id in enumerate(range(rows.start, rows.stop)):
        status = (failed or {}).get(clip_id)
        if status is not None:
            result.set_failed(row, status, f"video{clip_id:04d}: made to fail")
        else:
            of = clip_id if like is None else like[clip_id]
            _set_ok(result, row, of, info.grid, info.hidden_size, len(info.label_names))
    return result


def begin_store(
    path: str | Path,
    num_clips: int = 10,
    *,
    grid: TokenGrid = GRID,
    hidden_size: int = HIDDEN_SIZE,
    label_names: list[str] | None = None,
    groups: Sequence[str | None] | None = None,
    **config_changes: Any,
) -> StoreWriter:
    """A store without shards, or one to continue; arguments as of `make_store`."""
    names = LABEL_NAMES if label_names is None else label_names
    config = make_config(**config_changes)
    plan = make_plan(num_clips, config.shard_size, len(names), groups)
    config = replace(config, plan_digest=plan_digest(plan))
    return create_store(str(path), config, plan, grid, hidden_size, names)


def make_store(
    path: str | Path,
    num_clips: int = 10,
    *,
    failed: Mapping[int, ClipStatus] | None = None,
    degenerate: tuple[int, ...] = (),
    shards: list[int] | None = None,
    grid: TokenGrid = GRID,
    hidden_size: int = HIDDEN_SIZE,
    label_names: list[str] | None = None,
    groups: Sequence[str | None] | None = None,
    like: Sequence[int] | None = None,
    **config_changes: Any,
) -> Store:
    """Writes a store and opens it.

    Args:
        path: folder or URL.
        num_clips: rows of the plan.
        failed: status by clip id; all others are ok.
        degenerate: clip ids whose cam is negative everywhere.
        shards: which to commit, in this order; None commits all.
        grid: tokens of a clip.
        hidden_size: length of an embedding.
        label_names: classes; labels run through them in turn.
        groups: of each clip's video; None for a dataset without groups.
        like: the clip whose numbers each has, as copies of a video have; None: its own.
        config_changes: fields of `OracleConfig`, e.g. `shard_size=8, embeddings_per_clip=-1`.
    """
    begun = begin_store(
        path,
        num_clips,
        grid=grid,
        hidden_size=hidden_size,
        label_names=label_names,
        groups=groups,
        **config_changes,
    )
    with begun as writer:
        for shard in writer.pending() if shards is None else shards:
            result = make_result(writer, shard, failed, like)
            rows = writer.info.rows(shard)
            for clip_id in set(degenerate) & set(range(rows.start, rows.stop)):
                _set_ok(
                    result,
                    clip_id - rows.start,
                    clip_id,
                    grid,
                    hidden_size,
                    len(writer.info.label_names),
                    degenerate=True,
                )
            ShardWriter(writer.root).write(shard, result)
    return open_store(begun.root)


def file_hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every file that is committed data: all but `runs/`."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.relative_to(folder).parts[0] != "runs"
    }


def _set_ok(
    result: ShardResult,
    row: int,
    clip_id: int,
    grid: TokenGrid,
    hidden_size: int,
    num_classes: int,
    degenerate: bool = False,
) -> None:
    rng = np.random.default_rng(clip_id)
    cams = [_cam(rng, grid, degenerate)]
    # Other draws than those of the first: a store of one oracle has the same numbers.
    for oracle in range(1, len(result.suffixes)):
        cams.append(_cam(np.random.default_rng([clip_id, oracle]), grid, False))
    logits = rng.standard_normal(num_classes)
    probs = np.exp(logits) / np.exp(logits).sum()
    order = np.argsort(-probs)
    label = clip_id % num_classes
    k = 0 if result.embedding_index is None else result.embedding_index.shape[1]
    index = np.sort(rng.permutation(grid.num_tokens)[:k])
    embeddings = rng.standard_normal((grid.num_tokens, hidden_size))[index]
    result.set_ok(
        row,
        scores=[_scores(cam) for cam in cams],
        cam=cams,
        prediction=int(order[0]),
        top5=order[:5].tolist(),
        confidence=float(probs[order[0]]),
        true_prob=float(probs[label]),
        loss=float(-np.log(probs[label])),
        num_frames_total=30 + clip_id,
        padded=False,
        damaged=False,
        decoder="pyav",
        decoder_version="0.0",
        embeddings=embeddings if k else None,
        embedding_index=index if k else None,
    )


def _cam(rng: np.random.Generator, grid: TokenGrid, degenerate: bool) -> np.ndarray:
    # Skewed, as real maps are: a few tokens carry most of the score.
    cam = rng.standard_normal(grid.num_tokens).astype(np.float32) ** 3
    return -1 - np.abs(cam) if degenerate else cam


def _scores(cam: np.ndarray) -> np.ndarray:
    positive = np.maximum(cam, 0)
    span = positive.max() - positive.min()
    return (positive - positive.min()) / span if span > 0 else np.zeros_like(positive)
