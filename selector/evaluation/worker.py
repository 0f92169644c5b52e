"""The evaluation's worker: embeds every clip once, then ranks, drops and classifies."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from pipeline.backbones.loading import load_for_run
from pipeline.backbones.tokens import Reducer, Tokens
from pipeline.clips.views import View
from pipeline.config import RunConfig
from pipeline.errors import ClipStatus, ConfigError, DecodeError
from pipeline.shards.loader import Batch
from pipeline.shards.worker import ShardJob, ShardWorker
from pipeline.store.root import Root
from selector.evaluation.config import FULL, EvalConfig
from selector.evaluation.files import Evaluation
from selector.evaluation.layout import timings_path
from selector.evaluation.shard_rows import ShardRows
from selector.evaluation.timing import Stopwatch
from selector.methods.base import ClipBatch, Method, Setting
from selector.methods.cost import CostModel
from selector.methods.registry import Parts, make_method
from selector.training.files import selector_digest


@dataclass(kw_only=True)
class _Job(ShardJob):
    """One shard in work: its rows, and where the model's time goes."""

    rows: ShardRows
    watch: Stopwatch

    def fail(self, position: int, error: DecodeError) -> None:
        """Record a clip that failed, under all conditions."""
        self.rows.fail(position, error.status, str(error))

    def counts(self) -> dict[str, int]:
        """Clips per status."""
        return self.rows.counts()

    def num_worked(self) -> int:
        """Clips that have a result under one condition at least."""
        return self.rows.num_worked()


@dataclass(frozen=True)
class _Conditions:
    """One method, and the columns and settings that use what it prepares."""

    name: str
    method: Method
    columns: tuple[int, ...]
    settings: tuple[Setting, ...]


class EvalWorker(ShardWorker[_Job]):
    """Runs shards of one evaluation.

    Args:
        config: the evaluation's.
        run_config: speed settings.
        root: the evaluation's folder, which must exist.
    """

    def __init__(self, config: EvalConfig, run_config: RunConfig, root: Root) -> None:
        self._config, self._run_config = config, run_config
        self._evaluation = Evaluation(root)
        self._backbone = load_for_run(config, run_config)
        _check_selectors(config)
        self._methods = self._load_methods()
        self._costs = CostModel(self._backbone)
        super().__init__(config, run_config, self._backbone)

    def _load_methods(self) -> list[_Conditions]:
        config, settings = self._config, self._evaluation.info.settings
        columns: dict[tuple[str, int], list[int]] = {}
        for column, condition in enumerate(config.conditions):
            if condition.method != FULL:
                columns.setdefault((condition.method, condition.seed), []).append(column)
        names = {str(name): name for name in config.names}
        return [
            _Conditions(
                name,
                make_method(
                    names[name], Parts(self._backbone, seed, config.selectors, config.sampling)
                ),
                tuple(at),
                tuple(settings[column] for column in at),
            )
            for (name, seed), at in columns.items()
        ]

    def begin(self, shard: int) -> _Job:
        """All clips of a shard, all conditions unset."""
        plan = self._evaluation.plan(shard).to_pydict()
        return _Job(
            shard=shard,
            plan=plan,
            todo=range(len(plan["clip_id"])),
            rows=ShardRows(self._evaluation.info, plan),
            watch=Stopwatch(self._backbone.device),
        )

    def compute(self, job: _Job, batch: Batch) -> None:
        """All conditions on one batch."""
        with torch.no_grad():
            clips = self._embed(batch, job)
            for position, facts in batch.facts.items():
                job.rows.set_padded(position, facts["padded"])
            job.watch.timing.clips += len(clips)
            self._forward(clips.tokens, None, 0, batch, job)
            for conditions in self._methods:
                self._reduced(conditions, clips, batch, job)

    def commit(self, job: _Job) -> None:
        """Write the results, which are the commit record, and then the timing."""
        self._evaluation.commit(job.shard, job.rows.to_table())
        self._evaluation.root.put(timings_path(job.shard), job.watch.timing.to_json())

    def _embed(self, batch: Batch, job: _Job) -> ClipBatch:
        backbone, plan, at = self._backbone, job.plan, batch.positions
        began = job.watch.now()
        pixel_values = backbone.pixel_values(batch.clips)
        tokens = backbone.embed(pixel_values)
        job.watch.timing.embed += job.watch.now() - began
        data_root, views = Path(self._run_config.data_root), self._config.views
        return ClipBatch(
            backbone=backbone,
            frames=batch.clips,
            pixel_values=pixel_values,
            tokens=tokens,
            labels=torch.from_numpy(job.rows.labels[at.start : at.stop]).to(backbone.device),
            clip_ids=tuple(plan["clip_id"][p] for p in at),
            video_ids=tuple(plan["video_id"][p] for p in at),
            paths=tuple(str(data_root / plan["path"][p]) if p in batch.facts else None for p in at),
            views=tuple(View(plan["segment"][p], plan["crop"][p], *views) for p in at),
        )

    def _reduced(self, conditions: _Conditions, clips: ClipBatch, batch: Batch, job: _Job) -> None:
        """One method at all its settings."""
        method, positions = conditions.method, list(batch.facts)
        began = job.watch.now()
        prepared = method.prepare(clips)
        spent = job.watch.timing.rank
        spent[conditions.name] = spent.get(conditions.name, 0.0) + job.watch.now() - began
        mass = method.kept_mass(prepared, conditions.settings)
        if mass is not None:
            slots = [position - batch.start for position in positions]
            job.rows.set_mass(positions, conditions.columns, mass[slots])
        undecided = method.reasons(prepared)
        for column, setting in zip(conditions.columns, conditions.settings, strict=True):
            reducer = method.reducer(prepared, setting)
            self._forward(clips.tokens, reducer, column, batch, job)
            if method.by_content:
                nums = method.num_left(prepared, setting).tolist()
                for position in positions:
                    num = nums[position - batch.start]
                    job.rows.set_cost(position, column, num, self._costs.at(num).backbone)
            for slot, reason in undecided.items():
                if batch.start + slot in batch.facts:
                    job.rows.fail(batch.start + slot, ClipStatus.MODEL_ERROR, reason, column)

    def _forward(
        self, tokens: Tokens, reducer: Reducer | None, column: int, batch: Batch, job: _Job
    ) -> None:
        """One condition on one batch."""
        began = job.watch.now()
        with torch.inference_mode():
            logits = self._backbone.run(tokens, reducer).cpu().numpy()
        spent = job.watch.timing.forward
        spent[str(column)] = spent.get(str(column), 0.0) + job.watch.now() - began
        positions = list(batch.facts)
        job.rows.set(positions, column, logits[[p - batch.start for p in positions]])


def _check_selectors(config: EvalConfig) -> None:
    for method, folder in config.selectors.items():
        begun_with = config.selector_digests[method]
        try:
            digest = selector_digest(folder)
        except OSError as error:
            raise ConfigError(
                f"the selector of {method}, {folder}, cannot be read here ({error}): every node "
                "needs the same files"
            ) from error
        if digest != begun_with:
            raise ConfigError(
                f"the selector of {method}, {folder}, has digest {digest[:12]} here, but the "
                f"evaluation began with {begun_with[:12]}: every node needs the same files, and "
                "they must not change during a run"
            )
