"""Evaluating: what is asked for becomes a plan, a folder, and shards that are done."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa
import pyarrow.compute as pc

from datasets_spec import load_spec, read_label_names, read_videos
from datasets_spec.read import canonical_split
from pipeline.attempt import ShardReport
from pipeline.backbones import Backbone, load_backbone
from pipeline.classes import require_same_classes
from pipeline.config import RunConfig
from pipeline.decode.version import decode_version
from pipeline.driver import Loss, run_shards
from pipeline.errors import ClipStatus, ConfigError
from pipeline.plan import UNKNOWN_LABEL, build_plan, plan_digest
from pipeline.progress import Progress
from pipeline.runlog import RunLog
from pipeline.store.root import Root
from selector.cost import CostModel
from selector.evaluation.config import FULL, EvalConfig
from selector.evaluation.folder import Evaluation, EvaluationInfo, begun
from selector.evaluation.worker import EvalWorker
from selector.keep import KEEP_RATIOS, num_kept
from selector.rankers import RankerSpec, make_ranker, require_selectors
from selector.rankers.motion_vectors import require_motion_vectors
from selector.saving import selector_digest

NUM_PROBED = 16
"""Clips looked at for whether their codec carries motion vectors."""
SHARDS_IN_FLIGHT = 2
"""Per Ray worker: one is decoded ahead while the other has the model."""


@dataclass(frozen=True, kw_only=True)
class EvalRequest:
    """What to evaluate; None where the dataset decides."""

    dataset: str
    data_root: str
    backbone: str
    methods: tuple[RankerSpec, ...]
    revision: str | None = None
    split: str | None = None
    views: tuple[int, int] = (1, 1)
    sampling: str | None = None
    limit: int | None = None
    decoder: str = "pyav"
    selectors: Mapping[str, str] = field(default_factory=dict)
    """Method, `lite` or `lite[NAME]`, to the folder of its selector."""
    keep_ratios: tuple[float, ...] = (1.0, *KEEP_RATIOS)
    num_seeds: int = 3
    precision: str = "fp32"
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
    decode_version(request.decoder)  # raises where it is not installed
    require_selectors(request.methods, request.selectors)
    spec = load_spec(request.dataset)
    split = canonical_split(spec, request.split or spec.eval_split)
    videos = read_videos(spec, request.data_root, split)
    label_names = read_label_names(spec, request.data_root)
    plan = build_plan(videos, request.views, request.shard_size, request.limit)
    _require_labels(plan, spec.name, split)
    if any(method.name == "motion-vectors" for method in request.methods):
        paths = plan["path"].slice(0, NUM_PROBED).to_pylist()
        require_motion_vectors(str(Path(request.data_root) / path) for path in paths)
    backbone = load_backbone(request.backbone, request.revision)
    require_same_classes(spec.name, label_names, backbone, request.backbone)
    gmacs = {
        str(m): make_ranker(m, backbone, 0, request.selectors.get(str(m))).gmacs
        for m in request.methods
    }
    config = EvalConfig(
        dataset=spec.name,
        plan_digest=plan_digest(plan),
        split=split,
        backbone=request.backbone,
        backbone_digest=backbone.digest,
        revision=request.revision,
        selectors=dict(request.selectors),
        selector_digests={m: selector_digest(d) for m, d in request.selectors.items()},
        decoder=request.decoder,
        sampling=request.sampling or spec.sampling,
        num_segments=request.views[0],
        num_crops=request.views[1],
        methods=tuple(map(str, request.methods)),
        keep_ratios=request.keep_ratios,
        num_seeds=request.num_seeds,
        precision=request.precision,
        shard_size=request.shard_size,
    )
    return _info(config, plan.num_rows, label_names, backbone, gmacs), plan


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
        if not pending:
            return EvalResult(evaluation=evaluation)
        done = info.num_clips - sum(map(info.num_clips_of, pending))
        progress = Progress(total=info.num_clips, done=done, stream=progress_stream)
        log = RunLog(root, info.config, run_config)

        def report(done: ShardReport) -> None:
            progress.add(done.num_clips, done.num_failed, done.seconds)
            log.add("shard", vars(done))

        try:
            given_up = run_shards(
                functools.partial(worker_class, info.config, run_config, root),
                pending,
                run_config,
                report,
                in_flight=SHARDS_IN_FLIGHT,
                on_loss=lambda loss: log.add("loss", vars(loss)),
                recover=functools.partial(_recover, evaluation),
            )
        finally:
            progress.close()
            log.close()
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


def _require_labels(plan: pa.Table, dataset: str, split: str) -> None:
    unknown = pc.sum(pc.equal(plan["label"], UNKNOWN_LABEL)).as_py()
    if unknown:
        raise ConfigError(
            f"{unknown} of {plan.num_rows} clips of {dataset}/{split} have no label, and accuracy "
            "needs one: choose a split with labels (--split)"
        )


def _recover(evaluation: Evaluation, shard: int) -> ShardReport | None:
    """The report of a shard whose worker died after the commit."""
    if shard not in evaluation.shards():
        return None
    rows = evaluation.read_shard(shard, ["clip_id", "status"]).to_pandas()
    failed = rows[rows["status"] != ClipStatus.OK].drop_duplicates("clip_id")["status"]
    counts = Counter(failed)
    counts[ClipStatus.OK] = evaluation.info.num_clips_of(shard) - len(failed)
    return ShardReport(shard=shard, counts=dict(counts), seconds={}, host="", pid=0)
