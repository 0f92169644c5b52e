"""The evaluation's worker: embeds every clip once, then ranks, drops and classifies."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from pipeline.backbones.loading import load_for_run
from pipeline.backbones.tokens import Tokens, reduce
from pipeline.clips.views import View
from pipeline.config import RunConfig
from pipeline.errors import ClipStatus, ConfigError, DecodeError
from pipeline.shards.loader import Batch
from pipeline.shards.worker import ShardJob, ShardWorker
from pipeline.store.root import Root
from selector.budgets.rules import mass_of_tokens
from selector.evaluation.config import FULL, EvalConfig
from selector.evaluation.files import Evaluation
from selector.evaluation.layout import results_bytes, results_path, timings_path
from selector.evaluation.shard_rows import ShardRows
from selector.evaluation.timing import Stopwatch
from selector.methods.keep import best_tokens
from selector.methods.rank import ClipBatch, Ranker, make_ranker
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


@dataclass(frozen=True)
class _Ranking:
    """One ranker, and the conditions that use its scores: (column, tokens kept)."""

    method: str
    ranker: Ranker
    conditions: tuple[tuple[int, int], ...]


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
        self._rankings = self._load_rankings()
        super().__init__(config, run_config, root, self._backbone)

    def _load_rankings(self) -> list[_Ranking]:
        config, num_kept = self._config, self._evaluation.info.num_kept
        columns: dict[tuple[str, int], list[tuple[int, int]]] = {}
        for column, condition in enumerate(config.conditions):
            if condition.method != FULL:
                key = (condition.method, condition.seed)
                columns.setdefault(key, []).append((column, num_kept[column]))
        specs = {str(spec): spec for spec in config.specs}
        rankings = []
        for (method, seed), conditions in columns.items():
            spec = specs[method]
            selector = config.selectors.get(spec.selected_by or "")
            ranker = make_ranker(spec, self._backbone, seed, selector, config.sampling)
            rankings.append(_Ranking(method, ranker, tuple(conditions)))
        return rankings

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
            job.watch.timing.clips += len(clips)
            self._forward(clips.tokens, None, 0, batch, job)
            for ranking in self._rankings:
                self._rank(ranking, clips, batch, job)

    def commit(self, job: _Job) -> None:
        """Write the results, which are the commit record, and then the timing."""
        root = self._evaluation.root
        root.put(results_path(job.shard), results_bytes(job.rows.to_table()))
        root.put(timings_path(job.shard), job.watch.timing.to_json())

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
            paths=tuple(str(data_root / plan["path"][p]) if p in batch.facts else None for p in at),
            views=tuple(View(plan["segment"][p], plan["crop"][p], *views) for p in at),
        )

    def _rank(self, ranking: _Ranking, clips: ClipBatch, batch: Batch, job: _Job) -> None:
        """One ranking at all its keep ratios."""
        began = job.watch.now()
        scores = ranking.ranker.scores(clips).to(self._backbone.device)
        spent = job.watch.timing.rank
        spent[ranking.method] = spent.get(ranking.method, 0.0) + job.watch.now() - began
        finite = scores.isfinite().all(dim=1).tolist()
        self._note_mass(ranking, scores, batch, job)
        for column, num_kept in ranking.conditions:
            self._forward(clips.tokens, (scores, num_kept), column, batch, job)
            for position in batch.facts:
                if not finite[position - batch.start]:
                    message = ranking.ranker.reasons.get(
                        position - batch.start, f"the scores of {ranking.method} are not finite"
                    )
                    job.rows.fail(position, ClipStatus.MODEL_ERROR, message, column)

    def _note_mass(self, ranking: _Ranking, scores: torch.Tensor, batch: Batch, job: _Job) -> None:
        """The predicted mass that each budget of one ranking keeps, where it predicts any."""
        predicted = ranking.ranker.predicted(scores)
        if predicted is None:
            return
        columns, counts = zip(*ranking.conditions, strict=True)
        held = mass_of_tokens(predicted, scores, counts).cpu().numpy()
        positions = list(batch.facts)
        job.rows.set_mass(positions, columns, held[[p - batch.start for p in positions]])

    def _forward(
        self,
        tokens: Tokens,
        keep: tuple[torch.Tensor, int] | None,
        column: int,
        batch: Batch,
        job: _Job,
    ) -> None:
        """One condition on one batch; `keep` is (scores, tokens kept), None keeps all."""
        began = job.watch.now()
        with torch.inference_mode():
            if keep is not None:
                tokens = reduce(tokens, best_tokens(tokens, *keep))
            logits = self._backbone.run(tokens).cpu().numpy()
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
