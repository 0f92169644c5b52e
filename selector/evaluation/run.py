"""Evaluating: what is asked for becomes a plan, a folder, and shards that are done."""

from __future__ import annotations

import functools
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import numpy as np
import pyarrow as pa

from datasets_spec import default_split, load_spec
from pipeline.clips.inputs import read_inputs
from pipeline.clips.plan import units
from pipeline.config import RunConfig
from pipeline.errors import ClipStatus, UnreachableBudgetError
from pipeline.shards.progress import Progress
from pipeline.shards.run import run_job, with_what_is_seen
from pipeline.shards.scheduler import Loss
from pipeline.store.layout import GROUP
from pipeline.store.root import Root
from selector.evaluation.config import EvalConfig
from selector.evaluation.files import Evaluation, EvaluationInfo, begun
from selector.evaluation.learnt import learnt_from, num_learnt, warning
from selector.evaluation.worker import EvalWorker
from selector.methods.base import Method, Setting
from selector.methods.cost import CostModel
from selector.methods.rank.motion_vectors import require_motion_vectors
from selector.methods.registry import Parts, make_method
from selector.training.files import selector_digest

logger = logging.getLogger(__name__)

NUM_PROBED = 16
"""Clips looked at for whether their codec carries motion vectors."""


@dataclass(frozen=True, kw_only=True)
class EvalResult:
    """How a run ended."""

    evaluation: Evaluation
    given_up: list[Loss] = field(default_factory=list)
    """Shards that this run could not commit."""


def prepare(asked: EvalConfig, run: RunConfig) -> tuple[EvaluationInfo, pa.Table]:
    """Read the dataset, the checkpoint and the selectors, and check that they go together.

    Args:
        asked: what to evaluate, with what the dataset and the checkpoint shall decide left open.
        run: where the videos are.

    Returns:
        What `evaluation.json` will say, and the plan.

    Raises:
        DatasetSpecError: the dataset, its split or its annotations.
        BackboneError: the checkpoint does not load, or its classes are not the dataset's.
        ConfigError: options that cannot work together, or videos without a label.
    """
    spec = load_spec(asked.dataset)
    split = asked.split or default_split(spec, run.data_root)
    needed = "have no label, and accuracy needs one: choose a split with labels (--split)"
    inputs = read_inputs(asked, run, spec, split, views=spec.eval_views, without_label=needed)
    plan, backbone = inputs.plan, inputs.backbone
    if any(name.name == "motion-vectors" for name in asked.names):
        paths = plan["path"].slice(0, NUM_PROBED).to_pylist()
        require_motion_vectors(str(Path(run.data_root) / path) for path in paths)
    costs = CostModel(backbone)
    parts = Parts(backbone, selectors=asked.selectors, sampling=inputs.config.sampling)
    methods = {str(name): make_method(name, parts) for name in asked.names}
    budgets = Budgets(costs, asked.gflops)
    keep_ratios = tuple(sorted({*asked.keep_ratios, *budgets.gflops}, reverse=True))
    config = replace(
        inputs.config,
        selector_digests={m: selector_digest(d) for m, d in asked.selectors.items()},
        learnt_from=learnt_from(asked.selectors),
        keep_ratios=keep_ratios,
        left_out=_unreachable(methods, keep_ratios, budgets),
    )
    info = _info(config, plan.num_rows, inputs.label_names, methods, budgets)
    return info, plan


def _warn_of_learnt(config: EvalConfig, plan: pa.Table) -> None:
    unit_of = dict(zip(plan["video_id"].to_pylist(), units(plan), strict=True))
    videos, groups = np.array([*unit_of], object), np.array([*unit_of.values()], object)
    found = num_learnt(config, videos, groups if GROUP in plan.column_names else None)
    if found:
        logger.warning("%s", warning(found, len(videos)))


def evaluate(
    asked: EvalConfig,
    out: str | Root,
    run_config: RunConfig,
    *,
    progress_stream: TextIO | None = None,
    worker_class: Callable[..., Any] = EvalWorker,
    judges_all: bool = True,
) -> EvalResult:
    """Begin an evaluation or go on with one, until all its shards are done or given up.

    Args:
        asked: what to evaluate; must describe what `out` holds, if anything.
        out: folder or URL.
        run_config: how fast.
        progress_stream: where the progress line goes; None stays silent.
        worker_class: called as `EvalWorker` is.
        judges_all: False where the caller leaves out the videos that a selector learnt from, and
            needs no warning of them.

    Raises:
        LiteError: see `prepare`, `begun` and `run_shards`.
        KeyboardInterrupt: after the workers were stopped; the same call goes on.
    """
    info, plan = prepare(asked, run_config)
    if judges_all:
        _warn_of_learnt(info.config, plan)
    root = out if isinstance(out, Root) else Root(out)
    run_config = with_what_is_seen(run_config, info.config, plan["path"].to_pylist())
    with begun(root, info, plan) as evaluation:
        pending = evaluation.pending()
        done = info.num_clips - sum(map(info.num_clips_of, pending))
        make_worker = functools.partial(worker_class, info.config, run_config, root)
        given_up = run_job(
            root,
            info.config,
            run_config,
            make_worker,
            pending,
            progress=Progress(total=info.num_clips, done=done, stream=progress_stream),
            committed=functools.partial(_committed, evaluation),
            all_committed=evaluation.shards,
            second_worker=make_worker,
        )
        return EvalResult(evaluation=evaluation, given_up=given_up)


class Budgets:
    """What keep ratios buy of methods.

    Args:
        costs: of the backbone.
        gflops: budgets that are given as the cost of one view.

    Attributes:
        gflops: of these, by the share of the tokens that a ranking keeps within each.
    """

    def __init__(self, costs: CostModel, gflops: Sequence[float] = ()) -> None:
        self.costs = costs
        self.gflops = {costs.keep_ratio_within(value): value for value in gflops}

    def setting(self, method: Method, keep_ratio: float) -> Setting:
        """The dearest setting within a budget.

        Raises:
            UnreachableBudgetError: there is none.
        """
        gflops = self.gflops.get(keep_ratio)
        if gflops is not None:
            return method.setting_within(gflops, self.costs)
        return method.setting(keep_ratio, self.costs)


def _unreachable(
    methods: Mapping[str, Method], keep_ratios: Sequence[float], budgets: Budgets
) -> tuple[tuple[str, float], ...]:
    """Methods and budgets of which the method cannot get so cheap on this backbone."""
    found = []
    for name, method in methods.items():
        for ratio in () if method.by_content else keep_ratios:
            try:
                budgets.setting(method, ratio)
            except UnreachableBudgetError as error:
                logger.warning("keep ratio %g is left out: %s", ratio, error)
                found.append((name, ratio))
    return tuple(found)


def _info(
    config: EvalConfig,
    num_clips: int,
    label_names: list[str],
    methods: Mapping[str, Method],
    budgets: Budgets,
) -> EvaluationInfo:
    conditions = [
        _cost_out(methods.get(c.method), c.keep_ratio, budgets) for c in config.conditions
    ]
    return EvaluationInfo(
        config=config,
        num_clips=num_clips,
        label_names=tuple(label_names),
        settings=tuple(c.setting for c in conditions),
        num_kept=tuple(c.num_kept for c in conditions),
        gmacs=tuple(c.gmacs for c in conditions),
        gmacs_backbone=tuple(c.gmacs_backbone for c in conditions),
        gmacs_embed=budgets.costs.at(1).embed,
    )


class _Costed(NamedTuple):
    """One condition, costed out; fields as those of `EvaluationInfo`."""

    setting: Setting
    num_kept: int | None
    gmacs: float | None
    gmacs_backbone: float | None


def _cost_out(method: Method | None, keep_ratio: float | None, budgets: Budgets) -> _Costed:
    """The setting a budget buys; `method` is None for the full model."""
    costs = budgets.costs
    if method is None:
        full = costs.at(costs.num_tokens).backbone
        return _Costed(None, costs.num_tokens, full, full)
    if keep_ratio is None:
        return _Costed(method.setting(1.0, costs), None, None, None)
    setting = budgets.setting(method, keep_ratio)
    counts = method.course(setting, costs.flow)
    alone, extra = costs.at(counts).backbone, method.overhead(setting, costs.flow)
    left = counts.head - costs.flow.off_grid
    return _Costed(setting, left, None if extra is None else alone + extra, alone)


def _committed(evaluation: Evaluation, shard: int) -> dict[str, int] | None:
    """Clips per status of a shard; None where it is not committed."""
    if shard not in evaluation.shards():
        return None
    rows = evaluation.read_shard(shard, ["clip_id", "status"]).to_pandas()
    failed = rows[rows["status"] != ClipStatus.OK].drop_duplicates("clip_id")["status"]
    counts = Counter(failed)
    counts[ClipStatus.OK] = evaluation.info.num_clips_of(shard) - len(failed)
    return counts
