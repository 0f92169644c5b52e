"""Runs shards on workers: in this process, or on Ray actors."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from pipeline.config import RunConfig
from pipeline.shards.executor import Executor
from pipeline.shards.loop import Loop, Loss
from pipeline.shards.ray_env import settle_ray_env
from pipeline.shards.serial import SerialExecutor
from pipeline.shards.signals import sigterm_exits
from pipeline.shards.worker import Attempt, Worker

__all__ = ["Attempt", "Loss", "Worker", "run_shards"]


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
    make_executor: Callable[..., Executor] = SerialExecutor
    if run_config.workers > 0:
        settle_ray_env(run_config.ray_address)
        # Before `sigterm_exits`: importing Ray installs a SIGTERM handler of its own.
        from pipeline.shards.ray_pool import RayExecutor

        make_executor = RayExecutor
    with sigterm_exits():
        executor = make_executor(make_worker, run_config, in_flight)
        try:
            with sigterm_exits():  # once more: starting Ray installs a handler that aborts
                return Loop(
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
