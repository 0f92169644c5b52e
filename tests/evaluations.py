"""Tiny evaluations: folders with made-up rows, and runs on tiny datasets."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from datasets_spec.types import Video
from pipeline.clips.plan import build_plan, plan_digest
from pipeline.config import RunConfig
from pipeline.errors import ClipStatus
from pipeline.store.root import Root
from selector.evaluation.config import FULL, EvalConfig
from selector.evaluation.files import Evaluation, EvaluationInfo, begun
from selector.evaluation.run import EvalResult, evaluate
from selector.evaluation.shard_rows import ShardRows
from selector.methods.registry import parse_methods

SHARD_SIZE = 4


def make_info(plan: pa.Table, num_classes: int, **changes: Any) -> EvaluationInfo:
    """Costs are the number of kept tokens of 10; a ranking adds one."""
    fields: dict[str, Any] = {
        "dataset": "csv",
        "plan_digest": plan_digest(plan),
        "split": "all",
        "backbone": "some/checkpoint",
        "backbone_digest": "b" * 64,
        "sampling": "uniform",
        "num_segments": 1,
        "num_crops": 1,
        "methods": ("random",),
        "keep_ratios": (1.0, 0.5),
        "num_seeds": 2,
        "shard_size": SHARD_SIZE,
    }
    config = EvalConfig(**(fields | changes))
    kept = tuple(
        None if c.keep_ratio is None else max(1, int(10 * c.keep_ratio)) for c in config.conditions
    )
    return EvaluationInfo(
        config=config,
        num_clips=plan.num_rows,
        label_names=tuple(f"class {i}" for i in range(num_classes)),
        settings=tuple(
            None if c.method == FULL else {"tau": 0.1, "grey_levels": 5.8} if k is None else k
            for c, k in zip(config.conditions, kept, strict=True)
        ),
        num_kept=kept,
        gmacs=tuple(
            None if k is None or c.method.startswith("oracle") else k + c.method.startswith("lite")
            for c, k in zip(config.conditions, kept, strict=True)
        ),
        gmacs_backbone=tuple(None if k is None else float(k) for k in kept),
        gmacs_embed=0.5,
    )


def make_plan(
    labels: Sequence[int],
    views: tuple[int, int] = (1, 1),
    shard_size: int = SHARD_SIZE,
    groups: Sequence[str | None] = (),
) -> pa.Table:
    """One video per label, and its group."""
    pairs = enumerate(itertools.zip_longest(labels, groups))
    videos = [Video(f"v{i:05d}", f"v{i}.mp4", label, "all", g) for i, (label, g) in pairs]
    return build_plan(videos, views, shard_size)


def make_evaluation(
    folder: Path,
    logits: np.ndarray,
    labels: Sequence[int],
    *,
    views: tuple[int, int] = (1, 1),
    failed: Sequence[tuple[int, int]] = (),
    shards: Sequence[int] | None = None,
    mass: np.ndarray | None = None,
    spent: np.ndarray | None = None,
    groups: Sequence[str | None] = (),
    **changes: Any,
) -> Evaluation:
    """An evaluation with given logits (clips, conditions, classes).

    Args:
        folder: where.
        logits: float32.
        labels: one per video.
        views: per video.
        failed: (clip, condition) that failed.
        shards: which are committed; None means all.
        mass: (clips, conditions) share of predicted mass that is kept, NaN for none.
        spent: (clips,) tokens kept, and GMACs, under conditions where the content decides.
        groups: one per video, None where it is not known.
        changes: fields of `EvalConfig`.
    """
    plan = make_plan(labels, views, changes.get("shard_size", SHARD_SIZE), groups)
    changes |= {"num_segments": views[0], "num_crops": views[1]}
    info = make_info(plan, logits.shape[2], **changes)
    assert logits.shape[:2] == (plan.num_rows, len(info.config.conditions))
    root = Root(str(folder))
    with begun(root, info, plan) as evaluation:
        for shard in evaluation.pending() if shards is None else shards:
            part = evaluation.plan(shard).to_pydict()
            rows = ShardRows(info, part)
            at = np.arange(len(part["clip_id"]))
            for column in range(logits.shape[1]):
                rows.set(at, column, logits[part["clip_id"], column].astype(np.float32))
            if mass is not None:
                rows.set_mass(at, range(mass.shape[1]), mass[part["clip_id"]])
            for column, condition in enumerate(info.config.conditions):
                if condition.keep_ratio is None:
                    assert spent is not None
                    for position, clip in enumerate(part["clip_id"]):
                        rows.set_cost(position, column, int(spent[clip]), float(spent[clip]))
            for clip, column in failed:
                if clip in part["clip_id"]:
                    position = part["clip_id"].index(clip)
                    rows.fail(position, ClipStatus.MODEL_ERROR, "made to fail", column)
            evaluation.commit(shard, rows.to_table())
    return evaluation


def make_lite_evaluation(
    folder: Path,
    methods: Sequence[str] = ("lite",),
    num_videos: int = 400,
    views: tuple[int, int] = (1, 1),
    **changes: Any,
) -> tuple[Evaluation, np.ndarray]:
    """Right at 0.5 always; at 0.3 only where the view of 10 % is sure, or hopelessly unsure.

    The confidence at 0.3 says whether it is right, and so does the predicted mass.

    Returns:
        The evaluation, and which clips are easy, (n,).
    """
    num_clips = num_videos * views[0] * views[1]
    sure = np.random.default_rng(0).random(num_clips)
    easy = (sure > 0.6) | (sure < 0.1)
    logits = np.zeros((num_clips, 4, 3))
    logits[:, 0, 0] = logits[:, 1, 0] = 5  # the label is class 0
    logits[:, 2, 0] = np.where(easy, 5, -5)
    logits[:, 2, 1] = np.where(easy, 0, 4.9)
    logits[:, 3, 1] = 3 * sure  # always wrong
    mass = np.full((num_clips, 4), np.nan)
    mass[:, 1:] = np.where(easy, 0.9, 0.41)[:, None] * [1, 0.8, 0.1]
    again = 1 + np.tile(np.arange(3), len(methods))
    fields: dict[str, Any] = {
        "methods": tuple(methods),
        "keep_ratios": (1.0, 0.5, 0.3, 0.1),
        "selector_digests": {
            method.replace("-spread", ""): f"digest of {method}" for method in methods
        },
        "shard_size": 64,
    }
    evaluation = make_evaluation(
        folder,
        logits[:, [0, *again]],
        [0] * num_videos,
        views=views,
        mass=mass[:, [0, *again]],
        **(fields | changes),
    )
    return evaluation, easy


def ask(backbone: Path, methods: str, **changes: Any) -> EvalConfig:
    """Shards of 4 clips, half and a quarter of the 8 tokens, two seeds."""
    fields: dict[str, Any] = {
        "dataset": "csv",
        "split": "all",
        "backbone": str(backbone),
        "methods": tuple(map(str, parse_methods(methods, "blocks.-1.output", "gradcam"))),
        "keep_ratios": (0.5, 0.25),
        "num_seeds": 2,
        "shard_size": SHARD_SIZE,
    }
    return EvalConfig(**(fields | changes))


def run_evaluation(
    out: Path,
    data: Path,
    backbone: Path,
    methods: str = "random,oracle",
    *,
    run: dict[str, Any] | None = None,
    options: dict[str, Any] | None = None,
    **changes: Any,
) -> EvalResult:
    """`evaluate` in this process, two clips a batch."""
    fields: dict[str, Any] = {"data_root": str(data), "decode_workers": 0, "batch_size": 2}
    return evaluate(
        ask(backbone, methods, **changes),
        str(out),
        RunConfig(**(fields | (run or {}))),
        **(options or {}),
    )
