"""Runs shards of a store or of an evaluation, until each is committed or given up.

`run_shards` knows nothing of what a shard is. `run_job` puts around it what every job over shards
has: the progress line, the side files, and what becomes of a shard whose worker died after the
commit.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import FrameType
from typing import Any

from pipeline.backbones.checkpoint import pinned_revision
from pipeline.config import ClipConfig, RunConfig
from pipeline.errors import ClipStatus
from pipeline.shards.executor import Executor, Worker
from pipeline.shards.loader import find_known_videos
from pipeline.shards.progress import Progress
from pipeline.shards.scheduler import Loss, Scheduler
from pipeline.shards.serial_executor import SerialExecutor
from pipeline.shards.side_files import Numerics, RunLog, ShardsInWork
from pipeline.shards.worker import ShardReport
from pipeline.store.root import Root

SIGTERM_EXIT_CODE = 128 + signal.SIGTERM
TRANSIENT = frozenset([ClipStatus.DECODE_TIMEOUT])
"""Failures that a machine with too much to do may be the cause of, and not the clip."""
SHARDS_IN_FLIGHT = 2
"""Per Ray worker: one is decoded ahead or written out while the other has the model."""


def run_job(
    root: Root,
    config: ClipConfig,
    run_config: RunConfig,
    make_worker: Callable[[], Worker[ShardReport]],
    shards: list[int],
    *,
    progress: Progress,
    committed: Callable[[int], Mapping[str, int] | None],
    all_committed: Callable[[], Iterable[int]] = lambda: (),
    second_worker: Callable[[], Worker[ShardReport]] | None = None,
) -> list[Loss]:
    """Run shards; the same call goes on where a killed one stopped.

    Args:
        root: of the store or evaluation, which exists and is locked by the caller.
        config: what it holds.
        run_config: how fast.
        make_worker: picklable.
        shards: what to do.
        progress: at its start; closed at the end.
        committed: the clips per status of a shard, None where it is not committed.
        all_committed: shards of this run and of earlier ones that may show that something works.
        second_worker: for a second try, after all else is done, of shards with a clip that failed
            in a way that a busy machine may be the cause of (`TRANSIENT`); None for no such try.

    Returns:
        The shards that were given up.

    Raises:
        LiteError: see `run_shards`.
        KeyboardInterrupt: after the workers were stopped.
    """
    in_work = ShardsInWork(root, shards)
    if not shards:
        in_work.end()
        return []
    log, numerics = RunLog(root, config, run_config), Numerics(root)
    progress.show()

    second_try: set[int] = set()

    def on_start(facts: dict[str, Any]) -> None:
        log.add("worker", facts)
        numerics.compare(facts)

    def on_report(report: ShardReport) -> None:
        in_work.committed(report.shard)
        if second_worker is not None and TRANSIENT & report.counts.keys():
            second_try.add(report.shard)
        progress.add(report.num_clips, report.num_failed, report.seconds)
        log.add("committed", vars(report))
        numerics.compare({"batch_size": report.batch_size})

    def recover(shard: int) -> ShardReport | None:
        counts = committed(shard)
        return None if counts is None else ShardReport.after_death(shard, counts, run_config)

    def proof() -> int | None:
        works = (s for s in sorted(all_committed()) if (committed(s) or {}).get(ClipStatus.OK))
        return next(works, None)

    def on_second_report(report: ShardReport) -> None:
        log.add("tried again", vars(report))

    options: dict[str, Any] = {
        "in_flight": SHARDS_IN_FLIGHT,
        "losses": dict(in_work.losses),
        "on_loss": lambda loss: log.add("lost", vars(loss)),
        "on_start": on_start,
        # Its death would be this process's own; those of Ray's workers are seen from here.
        "on_submit": (lambda shard: None) if run_config.workers else in_work.begin,
        "recover": recover,
        "works": lambda report: report.num_worked > 0,
        "proof": proof,
    }
    try:
        given_up = run_shards(make_worker, shards, run_config, on_report, **options)
        if second_worker is not None:
            # Committed as they are: who loses them now leaves them to the next run.
            options |= {"recover": lambda shard: None, "losses": {}}
            given_up += run_shards(
                second_worker, sorted(second_try), run_config, on_second_report, **options
            )
        return given_up
    finally:
        in_work.end()  # not reached by a process that is killed
        progress.close()
        log.close()


def with_what_is_seen(run_config: RunConfig, config: ClipConfig, paths: Sequence[str]) -> RunConfig:
    """The settings with what the driver sees now, for every worker to hold to.

    Args:
        run_config: as the user gave them.
        config: names the checkpoint.
        paths: of the plan's videos.
    """
    return replace(
        run_config,
        known_videos=find_known_videos(run_config.data_root, paths),
        backbone_commit=pinned_revision(config.backbone, config.revision),
    )


def run_shards(
    make_worker: Callable[[], Worker[Any]],
    shards: Iterable[int],
    run_config: RunConfig,
    on_report: Callable[[Any], None],
    *,
    in_flight: int = 1,
    **options: Any,
) -> list[Loss]:
    """Run every shard once, retrying what fails.

    Args:
        make_worker: factory of the worker; picklable, as it is called in other processes too.
        shards: shard numbers, in the order in which they should start.
        run_config: `workers` = 0 runs in this process and never imports Ray.
        on_report: called in this process with what each `Worker.run` returned.
        in_flight: shards a Ray worker may be given at a time; above 1 its `run` must be
            thread-safe. A worker in this process always has one.
        options: further attributes of the `Scheduler`.

    Returns:
        The shards that were given up, with their last failure. Empty when all went well.

    Raises:
        LiteError: what no further try can mend; see `Scheduler`.
    """
    shards = list(shards)
    if not shards:
        return []
    # Before `sigterm_exits`: importing Ray installs a SIGTERM handler of its own.
    make_executor = executor_class(run_config)
    with sigterm_exits():
        executor = make_executor(make_worker, run_config, in_flight)
        try:
            with sigterm_exits():  # once more: starting Ray installs a handler that aborts
                return Scheduler(
                    executor=executor,
                    shards=shards,
                    max_attempts=run_config.max_attempts,
                    shard_timeout_s=run_config.shard_timeout_s,
                    on_report=on_report,
                    **options,
                ).run()
        finally:
            executor.close()


def executor_class(run_config: RunConfig) -> Callable[..., Executor]:
    """This process where no Ray workers are asked for, else Ray, which is imported only then."""
    if run_config.workers == 0:
        return SerialExecutor
    settle_ray_env(run_config.ray_address)
    from pipeline.shards.ray_executor import RayExecutor

    return RayExecutor


def settle_ray_env(address: str | None) -> None:
    """Keep Ray quiet; what the user's environment already says stays.

    Args:
        address: of the cluster to join, or None for a local Ray. A cluster's authentication mode is
            its own affair; a local Ray has a token either way, and warns unless that is said aloud.
    """
    if "ray" in sys.modules:
        return  # it reads these settings when it is imported
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Older releases warn that they will stop hiding the GPUs from workers that asked for none.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if address is None:
        os.environ.setdefault("RAY_AUTH_MODE", "token")


@contextlib.contextmanager
def sigterm_exits() -> Iterator[None]:
    """Inside, SIGTERM raises `SystemExit(143)` in the main thread, so that `finally` blocks run."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    received = False

    def leave(signum: int, frame: FrameType | None) -> None:
        nonlocal received
        received = True
        raise SystemExit(SIGTERM_EXIT_CODE)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    except SystemExit:
        if not received:
            raise
        raise SystemExit(SIGTERM_EXIT_CODE) from None  # inside `ray.wait` it becomes SystemExit(1)
    finally:
        signal.signal(signal.SIGTERM, before)
