"""A worker that harms itself on command. Only tests use it; the product has no such hooks."""

from __future__ import annotations

import errno
import faulthandler
import functools
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.oracle.worker import OracleWorker

ALWAYS = 10**9


@dataclass(frozen=True)
class Order:
    """One misfortune.

    Attributes:
        at: `prepare` (nothing done yet), `score` (between two batches), `commit` (all computed,
            nothing written), `rename:PATH` (a file whose final name contains PATH is written but
            not yet in place), `renamed:PATH` (just in place), `end` (committed, not yet reported),
            or `clip:ID` (whenever the model gets that clip).
        shard: in which shard; None in any.
        act: `kill` (SIGKILL to itself), `kill driver` (SIGKILL to the process that drives a serial
            run, be it this one or its parent), `crash` (SIGSEGV), `full` (no space left on the
            device), `hang`, `raise`, or `pause` (for 3 seconds).
        times: how often, over all processes.
    """

    at: str
    shard: int | None = None
    act: str = "kill"
    times: int = 1


def chaos(folder: Path, *orders: Order) -> Callable[..., Any]:
    """A picklable `worker_class`; `folder` is where the processes count what has happened."""
    folder.mkdir(parents=True, exist_ok=True)
    return functools.partial(ChaosWorker, str(folder), orders)


def is_isolated() -> bool:
    """Whether this process is a child that does one shard for its driver."""
    return Path(sys.argv[0]).name == "isolated.py"


def count(folder: Path) -> int:
    """How many misfortunes have happened."""
    return len(list(folder.iterdir()))


def workers_met(folder: Path) -> set[str]:
    """Process ids of the workers that had a misfortune."""
    return {path.read_text() for path in folder.iterdir()} - {""}


class ChaosWorker(OracleWorker):
    """`OracleWorker` that carries out orders."""

    def __init__(self, folder: str, orders: tuple[Order, ...], *args: Any) -> None:
        super().__init__(*args)
        self._folder = Path(folder)
        self._orders = orders
        if args[1].decode_workers == 0:
            # No misfortune here is the decoder's: spare an isolated attempt its decoder process.
            self._loader._safe_pool = self._loader._pool
        self._watch_clips()
        self._watch_renames()

    def _meet(self, at: str, shard: int | None) -> None:
        for number, order in enumerate(self._orders):
            if order.at != at or order.shard not in (None, shard) or not self._take(number, order):
                continue
            if order.act == "raise":
                raise RuntimeError("chaos: odd input")
            if order.act == "full":
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if order.act in ("hang", "pause"):
                time.sleep(3600 if order.act == "hang" else 3)
                continue
            victim = os.getpid()
            if order.act == "kill driver" and is_isolated():
                victim = os.getppid()
            faulthandler.disable()  # of pytest, which would describe a crash at length
            os.kill(victim, signal.SIGSEGV if order.act == "crash" else signal.SIGKILL)
            time.sleep(3600)  # until the end of the driver ends this process too

    def _take(self, number: int, order: Order) -> bool:
        """Whether the order is to be carried out once more; counted across processes."""
        for turn in range(min(order.times, 1000)):
            try:
                with (self._folder / f"{number}-{turn}").open("x") as file:
                    file.write(str(os.getpid()))
            except FileExistsError:
                continue
            return True
        return False

    def _compute_isolated(self, job: Any, batch: Any, isolation: Any) -> None:
        self._meet("prepare", job.shard)
        super()._compute_isolated(job, batch, isolation)
        self._meet("score", job.shard)

    def _watch_clips(self) -> None:
        scorer = self._scorer

        def score(clips: Any, labels: Any, clip_ids: Any) -> Any:
            for clip, clip_id in zip(clips, clip_ids, strict=True):
                if clip.any():  # a black slot is no clip
                    self._meet(f"clip:{clip_id}", None)
            return scorer(clips, labels, clip_ids)

        score.backbone = scorer.backbone  # type: ignore[attr-defined]
        self._scorer = score  # type: ignore[assignment]

    def commit(self, job: Any) -> None:
        self._meet("commit", job.shard)
        super().commit(job)
        self._meet("end", job.shard)

    def _watch_renames(self) -> None:
        """Both our store and Zarr put files in place with `Path.replace`."""
        replace = Path.replace
        worker = self

        def watched(path: Path, target: Any) -> Any:
            for order in worker._orders:
                kind, _, part = order.at.partition(":")
                if kind == "rename" and part in str(target):
                    worker._meet(order.at, order.shard)
            done = replace(path, target)
            for order in worker._orders:
                kind, _, part = order.at.partition(":")
                if kind == "renamed" and part in str(target):
                    worker._meet(order.at, order.shard)
            return done

        Path.replace = watched  # type: ignore[method-assign,assignment]
