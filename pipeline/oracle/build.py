"""Building an oracle store: what is asked for becomes a plan, a store, and shards that are done."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, TextIO

import pyarrow as pa

from datasets_spec import default_split, load_spec
from pipeline.clips.grid import TokenGrid
from pipeline.clips.inputs import read_inputs
from pipeline.config import LABEL, OracleConfig, RunConfig, require_one_of
from pipeline.errors import ClipStatus
from pipeline.oracle.names import METHODS, resolve_oracle
from pipeline.oracle.worker import OracleWorker
from pipeline.shards.progress import Progress
from pipeline.shards.run import TRANSIENT, run_job, with_what_is_seen
from pipeline.shards.scheduler import Loss
from pipeline.store.accuracy import Accuracy, measure_accuracy
from pipeline.store.layout import num_embeddings
from pipeline.store.reader import PENDING, open_store
from pipeline.store.root import Root
from pipeline.store.writer import StoreWriter, create_store


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
    num_padded: int
    """Clips whose video has fewer frames than they, so that some repeat."""
    accuracy: Accuracy | None
    """The stored predictions against the labels; None where there are none."""
    label_names: list[str]
    given_up: list[Loss] = field(default_factory=list)
    """Shards that this run could not commit."""

    @property
    def complete(self) -> bool:
        """Whether every clip of the plan has a row."""
        return not self.summary[PENDING]


def prepare(asked: OracleConfig, run: RunConfig) -> BuildPlan:
    """Read the dataset and the checkpoint, check that they go together, and close open fields.

    Raises:
        DatasetSpecError: the dataset, its split or its annotations.
        BackboneError: the checkpoint does not load, or its classes are not the dataset's.
        ConfigError: options that cannot work together.
    """
    for name in asked.oracles:
        require_one_of("method", name.method, METHODS)
    spec = load_spec(asked.dataset)
    split = asked.split or default_split(spec, run.data_root, "train")
    needed = "have no label to explain: use --target predicted, or a split with labels"
    without_label = needed if any(name.target == LABEL for name in asked.oracles) else None
    inputs = read_inputs(
        asked, run, spec, split, views=spec.train_views, without_label=without_label
    )
    backbone = inputs.backbone
    kept = asked.embeddings_per_clip
    first, *further = (resolve_oracle(backbone, name) for name in asked.oracles)
    config = replace(
        inputs.config,
        layer=first.layer,
        further_oracles=tuple(map(str, further)),
        embeddings_per_clip=num_embeddings(backbone.grid, None) if kept is None else kept,
    )
    return BuildPlan(
        config=config,
        plan=inputs.plan,
        grid=backbone.grid,
        hidden_size=backbone.hidden_size,
        label_names=inputs.label_names,
    )


def build(
    asked: OracleConfig,
    store: str | Root,
    run_config: RunConfig,
    *,
    retry: tuple[str, ...] | None = None,
    progress_stream: TextIO | None = None,
    worker_class: Callable[..., Any] = OracleWorker,
) -> BuildResult:
    """Create a store or go on with one, until all its shards are done or given up.

    Args:
        asked: what to build, with what the dataset and the checkpoint shall decide left open; must
            describe the store if there is one.
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
    prepared = prepare(asked, run_config)
    root = store if isinstance(store, Root) else Root(store)
    config = prepared.config
    run_config = with_what_is_seen(run_config, config, prepared.plan["path"].to_pylist())
    with create_store(
        root,
        config,
        prepared.plan,
        prepared.grid,
        prepared.hidden_size,
        prepared.label_names,
    ) as writer:

        def run(shards: list[int], again: tuple[str, ...] | None) -> list[Loss]:
            return run_job(
                root,
                config,
                run_config,
                functools.partial(worker_class, config, run_config, root, again),
                shards,
                progress=_progress(writer, shards, progress_stream, again=again is not None),
                # A shard that is done again was committed before, which says nothing.
                committed=lambda shard: None if again is not None else writer.counts(shard),
                all_committed=writer.committed,
                second_worker=None
                if again is not None
                else functools.partial(worker_class, config, run_config, root, tuple(TRANSIENT)),
            )

        given_up = run(writer.pending(), None)
        if retry is not None and not given_up:
            given_up = run(writer.to_retry(retry), retry)
    opened = open_store(root)
    return BuildResult(
        store=str(root),
        summary=opened.summary(),
        num_padded=opened.num_padded(),
        accuracy=measure_accuracy(opened),
        label_names=opened.label_names,
        given_up=given_up,
    )


def _progress(
    writer: StoreWriter, shards: list[int], stream: TextIO | None, *, again: bool
) -> Progress:
    if again:
        rows = [writer.info.rows(shard) for shard in shards]
        return Progress(total=sum(row.stop - row.start for row in rows), stream=stream)
    summary = open_store(writer.root).summary()
    total = sum(summary.values())
    done = total - summary[PENDING]
    return Progress(total=total, done=done, failed=done - summary[ClipStatus.OK], stream=stream)
