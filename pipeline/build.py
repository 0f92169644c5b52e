"""Building an oracle store: what is asked for becomes a plan, a store, and shards that are done."""

from __future__ import annotations

import functools
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TextIO

import pyarrow as pa
import pyarrow.compute as pc

from datasets_spec import load_spec, read_label_names, read_videos
from pipeline.attempt import ShardReport
from pipeline.backbones import load_backbone
from pipeline.classes import require_same_classes
from pipeline.config import DECODERS, OracleConfig, RunConfig
from pipeline.decode.version import decode_version
from pipeline.driver import Loss, run_shards
from pipeline.errors import ClipStatus, ConfigError
from pipeline.grid import TokenGrid
from pipeline.isolation import Isolation
from pipeline.oracle import METHODS
from pipeline.plan import UNKNOWN_LABEL, build_plan, plan_digest
from pipeline.progress import Progress
from pipeline.runlog import RunLog
from pipeline.store.info import read_info
from pipeline.store.layout import clips_path
from pipeline.store.reader import PENDING, open_store
from pipeline.store.root import Root
from pipeline.store.writer import committed_shards, create_store, read_parquet
from pipeline.worker import OracleWorker

logger = logging.getLogger(__name__)

SHARDS_IN_FLIGHT = 2
"""Per Ray worker: one is decoded ahead or written out while the other has the model."""
DEFAULT_TOKENS_PER_CLIP = 128


@dataclass(frozen=True, kw_only=True)
class BuildRequest:
    """What to build; None where the dataset or the backbone decides."""

    dataset: str
    data_root: str
    backbone: str
    revision: str | None = None
    split: str | None = None
    views: tuple[int, int] = (1, 1)
    sampling: str | None = None
    limit: int | None = None
    decoder: str = "pyav"
    method: str = "gradcam"
    layer: str = "blocks.-1.output"
    target: str = "label"
    precision: str = "fp32"
    tokens_per_clip: int | None = None
    seed: int = 0
    shard_size: int = 256


@dataclass(frozen=True, kw_only=True)
class BuildPlan:
    """Everything that is known before the first video is opened."""

    config: OracleConfig
    plan: pa.Table
    grid: TokenGrid
    hidden_size: int
    label_names: list[str]


@dataclass(frozen=True, kw_only=True)
class BuildResult:
    """How a run ended."""

    store: str
    summary: dict[str, int]
    """Clips of the whole store per status, with `pending`."""
    given_up: list[Loss] = field(default_factory=list)
    """Shards that this run could not commit."""

    @property
    def complete(self) -> bool:
        """Whether every clip of the plan has a row."""
        return not self.summary[PENDING]


def prepare(request: BuildRequest) -> BuildPlan:
    """Read the dataset and the checkpoint and check that they go together.

    Raises:
        DatasetSpecError: the dataset, its split or its annotations.
        BackboneError: the checkpoint does not load, or its classes are not the dataset's.
        ConfigError: options that cannot work together.
    """
    if request.method not in METHODS:
        raise ConfigError(f"method must be one of {', '.join(METHODS)}, got {request.method!r}")
    if request.decoder not in DECODERS:
        raise ConfigError(f"decoder must be one of {', '.join(DECODERS)}, got {request.decoder!r}")
    decode_version(request.decoder)  # raises where it is not installed
    spec = load_spec(request.dataset)
    split = request.split or ("train" if "train" in spec.splits else spec.eval_split)
    videos = read_videos(spec, request.data_root, split)
    label_names = read_label_names(spec, request.data_root)
    plan = build_plan(videos, request.views, request.shard_size, request.limit)
    if request.target == "label":
        _require_labels(plan, spec.name, split)
    backbone = load_backbone(request.backbone, request.revision)
    require_same_classes(spec.name, label_names, backbone, request.backbone)
    num_tokens = backbone.grid.num_tokens
    tokens_per_clip = request.tokens_per_clip
    if tokens_per_clip is None:
        tokens_per_clip = min(DEFAULT_TOKENS_PER_CLIP, num_tokens)
    config = OracleConfig(
        dataset=spec.name,
        plan_digest=plan_digest(plan),
        split=split,
        backbone=request.backbone,
        backbone_digest=backbone.digest,
        revision=request.revision,
        decoder=request.decoder,
        sampling=request.sampling or spec.sampling,
        num_segments=request.views[0],
        num_crops=request.views[1],
        method=request.method,
        layer=backbone.resolve_layer(request.layer),
        target=request.target,
        precision=request.precision,
        tokens_per_clip=tokens_per_clip,
        seed=request.seed,
        shard_size=request.shard_size,
    )
    return BuildPlan(
        config=config,
        plan=plan,
        grid=backbone.grid,
        hidden_size=backbone.hidden_size,
        label_names=label_names,
    )


def build(
    request: BuildRequest,
    store: str | Root,
    run_config: RunConfig,
    *,
    retry: tuple[str, ...] | None = None,
    progress_stream: TextIO | None = None,
    worker_class: Callable[..., Any] = OracleWorker,
) -> BuildResult:
    """Create a store or go on with one, until all its shards are done or given up.

    Args:
        request: what to build; must describe the store if there is one.
        store: folder or URL.
        run_config: how fast.
        retry: once all shards are done, do committed clips with these statuses again; None for
            none.
        progress_stream: where the progress line goes; None stays silent.
        worker_class: called as `OracleWorker` is.

    Raises:
        LiteError: see `prepare`, `create_store` and `run_shards`.
        KeyboardInterrupt: after the workers were stopped; the same call goes on.
    """
    prepared = prepare(request)
    root = store if isinstance(store, Root) else Root(store)
    config = prepared.config
    with create_store(
        root,
        config,
        prepared.plan,
        prepared.grid,
        prepared.hidden_size,
        prepared.label_names,
    ) as writer:
        runner = _Runner(root, config, run_config, progress_stream, worker_class)
        given_up = runner.run(writer.pending())
        if retry is not None and not given_up:
            given_up = runner.run(writer.to_retry(retry), retry)
    return BuildResult(store=str(root), summary=open_store(root).summary(), given_up=given_up)


class _Runner:
    """Runs shards of one store with progress, side log and the search for poison clips."""

    def __init__(
        self,
        root: Root,
        config: OracleConfig,
        run_config: RunConfig,
        stream: TextIO | None,
        worker_class: Callable[..., Any],
    ) -> None:
        self._root = root
        self._config = config
        self._run_config = run_config
        self._stream = stream
        self._worker_class = worker_class
        self._isolation = Isolation(root)
        for shard in self._isolation.learn_from_the_last_run():
            logger.info("the last run was killed with shard %d in hand", shard)

    def run(self, shards: list[int], retry: tuple[str, ...] | None = None) -> list[Loss]:
        """Run shards; `retry` names the statuses to do again in committed ones."""
        if not shards:
            return []
        progress = self._progress(shards, retry)
        log = RunLog(self._root, self._config, self._run_config)
        progress.show()

        def on_report(report: ShardReport) -> None:
            progress.add(report.num_clips, report.num_failed, report.seconds)
            log.add("committed", vars(report))

        try:
            return run_shards(
                functools.partial(
                    self._worker_class, self._config, self._run_config, self._root, retry
                ),
                shards,
                self._run_config,
                on_report,
                in_flight=SHARDS_IN_FLIGHT,
                on_loss=lambda loss: log.add("lost", vars(loss)),
                # A shard that is tried again was committed before, which says nothing.
                recover=self._recover if retry is None else lambda shard: None,
                learned=self._isolation.learn,
            )
        except (KeyboardInterrupt, SystemExit):
            self._isolation.let_go_of_all()  # stopped on purpose: no clip is to blame
            raise
        finally:
            progress.close()
            log.close()

    def _progress(self, shards: list[int], retry: tuple[str, ...] | None) -> Progress:
        summary = open_store(self._root).summary()
        total = sum(summary.values())
        done = total - summary[PENDING]
        failed = done - summary[ClipStatus.OK]
        if retry is not None:
            rows = [read_info(self._root).rows(shard) for shard in shards]
            total, done, failed = sum(row.stop - row.start for row in rows), 0, 0
        return Progress(total=total, done=done, failed=failed, stream=self._stream)

    def _recover(self, shard: int) -> ShardReport | None:
        """The report of a shard whose worker died after the commit."""
        if shard not in committed_shards(self._root):
            return None
        column = read_parquet(self._root, clips_path(shard), ["status"])["status"]
        counts = dict(Counter(column.to_pylist()))
        self._isolation.committed(shard)
        return ShardReport(shard=shard, counts=counts, seconds={}, host="", pid=0)


def _require_labels(plan: pa.Table, dataset: str, split: str) -> None:
    unknown = pc.sum(pc.equal(plan["label"], UNKNOWN_LABEL)).as_py()
    if unknown:
        raise ConfigError(
            f"{unknown} of {plan.num_rows} clips of {dataset}/{split} have no label to explain: "
            "use --target predicted, or a split with labels"
        )
