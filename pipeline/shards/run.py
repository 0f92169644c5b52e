"""Runs shards of a store or of an evaluation, until each is committed or given up.

`run_shards` knows nothing of what a shard is. `run_job` puts around it what every job over shards
has: the progress line, the side log, the search for poison clips, and what becomes of a shard whose
worker died after the commit.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import FrameType
from typing import Any

from pipeline.config import ClipConfig, RunConfig
from pipeline.shards.executor import Worker, executor_class
from pipeline.shards.poison import Isolation
from pipeline.shards.progress import Progress
from pipeline.shards.runlog import RunLog
from pipeline.shards.scheduler import Loss, Scheduler
from pipeline.shards.worker import ShardReport
from pipeline.store.root import Root

logger = logging.getLogger(__name__)

SIGTERM_EXIT_CODE = 128 + signal.SIGTERM
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
) -> list[Loss]:
    """Run shards; the same call goes on where a killed one stopped.

    Args:
        root: of the store or evaluation, which exists and is locked by the caller.
        config: what it holds.
        run_config: how fast.
        make_worker: picklable; its workers guard their attempts by `Isolation`.
        shards: what to do.
        progress: at its start; closed at the end.
        committed: the clips per status of a shard that this run has committed, None if it has not.

    Returns:
        The shards that were given up.

    Raises:
        LiteError: see `run_shards`.
        KeyboardInterrupt: after the workers were stopped.
    """
    if not shards:
        return []
    isolation = Isolation(root)
    for shard in isolation.learn_from_the_last_run():
        logger.info("the last run was killed with shard %d in hand", shard)
    log = RunLog(root, config, run_config)
    progress.show()

    def on_report(report: ShardReport) -> None:
        progress.add(report.num_clips, report.num_failed, report.seconds)
        log.add("committed", vars(report))

    def recover(shard: int) -> ShardReport | None:
        counts = committed(shard)
        if counts is None:
            return None
        isolation.committed(shard)
        return ShardReport(shard=shard, counts=dict(counts), seconds={}, host="", pid=0)

    try:
        return run_shards(
            make_worker,
            shards,
            run_config,
            on_report,
            in_flight=SHARDS_IN_FLIGHT,
            on_loss=lambda loss: log.add("lost", vars(loss)),
            recover=recover,
            learned=isolation.learn,
        )
    except (KeyboardInterrupt, SystemExit):
        isolation.let_go_of_all()  # stopped on purpose: no clip is to blame
        raise
    finally:
        progress.close()
        log.close()


def run_shards(
    make_worker: Callable[[], Worker[Any]],
    shards: Iterable[int],
    run_config: RunConfig,
    on_report: Callable[[Any], None],
    *,
    in_flight: int = 1,
    on_loss: Callable[[Loss], None] = lambda loss: None,
    recover: Callable[[int], Any | None] = lambda shard: None,
    learned: Callable[[int], bool] = lambda shard: False,
) -> list[Loss]:
    """Run every shard once, retrying what fails.

    Args:
        make_worker: factory of the worker; picklable, as Ray calls it in another process.
        shards: shard numbers, in the order in which they should start.
        run_config: `workers` = 0 runs in this process and never imports Ray.
        on_report: called in this process with what each `Worker.run` returned.
        in_flight: shards a Ray worker may have in hand; above 1 its `run` must be thread-safe.
            A worker in this process always has one.
        on_loss: called with every attempt that failed.
        recover: asked after a worker's death for the report of a shard it had in hand, in case
            it was committed before the death; None if it was not.
        learned: asked after the death of a worker that had only this shard in hand, whether it
            taught something about the shard; it does then not count towards `max_attempts`.

    Returns:
        The shards that were given up, with their last failure. Empty when all went well.

    Raises:
        DriverError: workers fail to start, the cluster lacks what was asked for, or everything
            fails.
        LiteError: what a worker raised on purpose while starting.
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
                    on_loss=on_loss,
                    recover=recover,
                    learned=learned,
                ).run()
        finally:
            executor.close()


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
