"""Runs shards of a store or of an evaluation, until each is committed or given up.

Around the driver, which knows nothing of what a shard is: the progress line, the side log, the
search for poison clips, and what becomes of a shard whose worker died after the commit.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from pipeline.config import ClipConfig, RunConfig
from pipeline.shards.driver import Loss, run_shards
from pipeline.shards.poison import Isolation
from pipeline.shards.progress import Progress
from pipeline.shards.runlog import RunLog
from pipeline.shards.worker import ShardReport, Worker
from pipeline.store.root import Root

logger = logging.getLogger(__name__)

SHARDS_IN_FLIGHT = 2
"""Per Ray worker: one is decoded ahead or written out while the other has the model."""


def advance(
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
