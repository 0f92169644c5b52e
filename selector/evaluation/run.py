"""Evaluating: what is asked for becomes a plan, a folder, and shards that are done."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa

from datasets_spec import load_spec
from pipeline.backbones import Backbone
from pipeline.clips.inputs import ClipRequest, read_inputs
from pipeline.config import RunConfig
from pipeline.errors import ClipStatus
from pipeline.shards.progress import Progress
from pipeline.shards.run import run_job
from pipeline.shards.scheduler import Loss
from pipeline.store.root import Root
from selector.evaluation.config import FULL, EvalConfig
from selector.evaluation.files import Evaluation, EvaluationInfo, begun
from selector.evaluation.worker import EvalWorker
from selector.methods.cost import CostModel
from selector.methods.keep import KEEP_RATIOS, num_kept
from selector.methods.rank import RankerSpec, make_ranker, require_selectors
from selector.methods.rank.motion_vectors import require_motion_vectors
from selector.training.files import selector_digest

NUM_PROBED = 16
"""Clips looked at for whether their codec carries motion vectors."""


@dataclass(frozen=True, kw_only=True)
class EvalRequest(ClipRequest):
    """What to evaluate; None where the dataset decides."""

    methods: tuple[RankerSpec, ...]
    selectors: Mapping[str, str] = field(default_factory=dict)
    """Method, `lite` or `lite[NAME]`, to the folder of its selector."""
    keep_ratios: tuple[float, ...] = (1.0, *KEEP_RATIOS)
    num_seeds: int = 3
    shard_size: int = 64


@dataclass(frozen=True, kw_only=True)
class EvalResult:
    """How a run ended."""

    evaluation: Evaluation
    given_up: list[Loss] = field(default_factory=list)
    """Shards that this run could not commit."""


def prepare(request: EvalRequest) -> tuple[EvaluationInfo, pa.Table]:
    """Read the dataset, the checkpoint and the selectors, and check that they go together.

    Returns:
        What `evaluation.json` will say, and the plan.

    Raises:
        DatasetSpecError: the dataset, its split or its annotations.
        BackboneError: the checkpoint does not load, or its classes are not the dataset's.
        ConfigError: options that cannot work together, or videos without a label.
    """
    require_selectors(request.methods, request.selectors)
    spec = load_spec(request.dataset)
    split = request.split or spec.eval_split
    needed = "have no label, and accuracy needs one: choose a split with labels (--split)"
    inputs = read_inputs(request, spec, split, without_label=needed)
    plan, backbone = inputs.plan, inputs.backbone
    if any(method.name == "motion-vectors" for method in request.methods):
        paths = plan["path"].slice(0, NUM_PROBED).to_pylist()
        require_motion_vectors(str(Path(request.data_root) / path) for path in paths)
    gmacs = {
        str(m): make_ranker(m, backbone, 0, request.selectors.get(m.selected_by or "")).gmacs
        for m in request.methods
    }
    config = EvalConfig(
        **vars(inputs.config),
        selectors=dict(request.selectors),
        selector_digests={m: selector_digest(d) for m, d in request.selectors.items()},
        methods=tuple(map(str, request.methods)),
        keep_ratios=request.keep_ratios,
        num_seeds=request.num_seeds,
    )
    return _info(config, plan.num_rows, inputs.label_names, backbone, gmacs), plan


def evaluate(
    request: EvalRequest,
    out: str | Root,
    run_config: RunConfig,
    *,
    progress_stream: TextIO | None = None,
    worker_class: Callable[..., Any] = EvalWorker,
) -> EvalResult:
    """Begin an evaluation or go on with one, until all its shards are done or given up.

    Args:
        request: what to evaluate; must describe what `out` holds, if anything.
        out: folder or URL.
        run_config: how fast.
        progress_stream: where the progress line goes; None stays silent.
        worker_class: called as `EvalWorker` is.

    Raises:
        LiteError: see `prepare`, `begun` and `run_shards`.
        KeyboardInterrupt: after the workers were stopped; the same call goes on.
    """
    info, plan = prepare(request)
    root = out if isinstance(out, Root) else Root(out)
    with begun(root, info, plan) as evaluation:
        pending = evaluation.pending()
        done = info.num_clips - sum(map(info.num_clips_of, pending))
        given_up = run_job(
            root,
            info.config,
            run_config,
            functools.partial(worker_class, info.config, run_config, root),
            pending,
            progress=Progress(total=info.num_clips, done=done, stream=progress_stream),
            committed=functools.partial(_committed, evaluation),
        )
        return EvalResult(evaluation=evaluation, given_up=given_up)


def _info(
    config: EvalConfig,
    num_clips: int,
    label_names: list[str],
    backbone: Backbone,
    ranking_gmacs: dict[str, float | None],
) -> EvaluationInfo:
    costs = CostModel(backbone)
    kept = tuple(num_kept(backbone.grid.num_tokens, c.keep_ratio) for c in config.conditions)
    alone = tuple(costs.at(k).backbone for k in kept)
    ranking = [0.0 if c.method == FULL else ranking_gmacs[c.method] for c in config.conditions]
    return EvaluationInfo(
        config=config,
        num_clips=num_clips,
        label_names=tuple(label_names),
        num_kept=kept,
        gmacs=tuple(None if r is None else g + r for g, r in zip(alone, ranking, strict=True)),
        gmacs_backbone=alone,
        gmacs_embed=costs.at(1).embed,
    )


def _committed(evaluation: Evaluation, shard: int) -> dict[str, int] | None:
    """Clips per status of a shard; None where it is not committed."""
    if shard not in evaluation.shards():
        return None
    rows = evaluation.read_shard(shard, ["clip_id", "status"]).to_pandas()
    failed = rows[rows["status"] != ClipStatus.OK].drop_duplicates("clip_id")["status"]
    counts = Counter(failed)
    counts[ClipStatus.OK] = evaluation.info.num_clips_of(shard) - len(failed)
    return counts
