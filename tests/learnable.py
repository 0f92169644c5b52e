"""A small store whose scores follow from the embeddings, so that a selector can learn them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pipeline.clips.grid import TokenGrid
from pipeline.errors import ClipStatus
from pipeline.store.reader import Store, open_store
from pipeline.store.root import Root
from pipeline.store.shard_writer import ShardWriter
from pipeline.store.writer import create_store
from tests.stores import LABEL_NAMES, make_config, make_plan, make_result

GRID = TokenGrid(2, 4, 4)
HIDDEN_SIZE = 8


def make_learnable_store(
    path: str | Path,
    num_clips: int = 60,
    *,
    failed: tuple[int, ...] = (),
    shards: list[int] | None = None,
    **config_changes: Any,
) -> Store:
    """Cam = a fixed direction of the embedding; channels are badly scaled, as real ones are."""
    config = make_config(**{"embeddings_per_clip": 12, "shard_size": 8} | config_changes)
    root = Root(path)
    statuses = dict.fromkeys(failed, ClipStatus.DECODE_ERROR)
    plan = make_plan(num_clips, config.shard_size)
    with create_store(root, config, plan, GRID, HIDDEN_SIZE, LABEL_NAMES) as writer:
        for shard in writer.pending() if shards is None else shards:
            result = make_result(writer, shard, statuses)
            for row, clip in enumerate(result.clips):
                if clip is not None and clip["status"] == ClipStatus.OK:
                    _teach(result, row, writer.info.rows(shard).start + row)
            ShardWriter(root).write(shard, result)
    return open_store(root)


def _teach(result: Any, row: int, clip_id: int) -> None:
    rng = np.random.default_rng([7, clip_id])
    scales = np.logspace(-1, 2, HIDDEN_SIZE)
    tokens = rng.standard_normal((GRID.num_tokens, HIDDEN_SIZE))
    cam = tokens @ np.linspace(1, -1, HIDDEN_SIZE)
    positive = np.maximum(cam, 0)
    scale = np.float32(np.abs(cam).max())
    result.scores[row] = (positive / positive.max()).reshape(GRID)
    result.cam[row] = (cam / scale).reshape(GRID)
    result.clips[row]["cam_scale"] = float(scale)
    result.clips[row]["degenerate"] = False
    if result.embeddings is not None:
        result.embeddings[row] = (tokens * scales + 5)[result.embedding_index[row]]
