"""Workers as Ray actors, one process each, on this machine or on a cluster.

Plain actors and `ray.wait`, without restarts or retries by Ray itself: the loop decides about both,
so every attempt has a reason and an end. The only module that imports Ray.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import re
import socket
from collections import deque
from collections.abc import Callable
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from pipeline.config import RunConfig
from pipeline.errors import DriverError
from pipeline.shards.executor import (
    Attempt,
    Died,
    Event,
    Finished,
    Raised,
    Started,
    StartFailed,
    Worker,
)
from pipeline.shards.isolated import IsolatedWorker

logger = logging.getLogger(__name__)

_CONNECT_S = 15.0
_OBJECT_STORE_BYTES = 200 << 20  # reports are tiny; the default takes 30 % of the memory


class _Actor:
    """Holds the worker inside the actor's process, or in a child of it."""

    def __init__(self, make_worker: Callable[[], Worker[Any]]) -> None:
        self._make_worker = make_worker

    def load(self) -> dict[str, Any]:
        """Build the worker: in a call, so that its error arrives as itself; its facts."""
        self._warnings = _Warnings()
        for package in ("pipeline", "selector"):
            logging.getLogger(package).addHandler(self._warnings)
        self._worker = self._make_worker()
        return self._worker.facts

    def run(self, shard: int, attempt: Attempt) -> tuple[Any, list[str]]:
        """Run one shard; its report, and what was warned of since the last one."""
        return self._worker.run(shard, attempt), self._warnings.take()


class _Warnings(logging.Handler):
    """Collects warnings, which would otherwise stay on the worker's node."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._texts: deque[str] = deque(maxlen=20)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the text."""
        self._texts.append(record.getMessage())

    def take(self) -> list[str]:
        """What was collected, once."""
        return [self._texts.popleft() for _ in range(len(self._texts))]


class RayExecutor:
    """A pool of actors.

    Args:
        make_worker: picklable factory, called inside each actor.
        run_config: workers, GPUs, threads and the address of the cluster.
        in_flight: shards per actor; above 1 `Worker.run` is called from several threads.

    Raises:
        DriverError: the cluster cannot be reached, or lacks the GPUs or CPUs asked for.
    """

    def __init__(
        self, make_worker: Callable[[], Worker[Any]], run_config: RunConfig, in_flight: int
    ) -> None:
        self.in_flight = in_flight
        self._make_worker, self._run_config = make_worker, run_config
        self._cpus = run_config.threads_per_worker + run_config.decode_workers
        self._gpus = run_config.gpus_per_worker
        self._actors: dict[int, Any] = {}
        self._loading: dict[Any, int] = {}
        self._running: dict[Any, tuple[int, int]] = {}
        self._next_id = 0
        self._ours = not ray.is_initialized()
        if self._ours:
            self._connect(run_config)
        try:
            self.num_workers = self._places(run_config.workers)
        except BaseException:
            self.close()
            raise

    def start(self, *, isolated: bool = False) -> int:
        """Ask Ray for one more actor."""
        worker, self._next_id = self._next_id, self._next_id + 1
        options: dict[str, Any] = {
            "num_cpus": self._cpus,
            "num_gpus": self._gpus,
            # Alone, a call runs in the main thread, which a child may take for its parent.
            "max_concurrency": 1 if isolated else self.in_flight,
            "max_restarts": 0,
            "max_task_retries": 0,
        }
        actor_class: Any = ray.remote(**options)(_Actor)
        make = self._make_worker
        if isolated:
            make = functools.partial(IsolatedWorker, make, self._run_config)
        actor = actor_class.remote(make)
        self._actors[worker] = actor
        self._loading[actor.load.remote()] = worker
        return worker

    def submit(self, worker: int, shard: int, attempt: Attempt) -> None:
        """Call the actor."""
        ref = self._actors[worker].run.remote(shard, attempt)
        self._running[ref] = (worker, shard)

    def wait(self, timeout_s: float) -> list[Event]:
        """Turn finished calls into events."""
        refs = [*self._running, *self._loading]
        if not refs:
            return []
        done, _ = ray.wait(refs, num_returns=1, timeout=timeout_s)
        return [event for ref in done if (event := self._event(ref)) is not None]

    def _event(self, ref: Any) -> Event | None:
        if ref in self._loading:
            worker = self._loading.pop(ref)
            try:
                facts = ray.get(ref)
            except RayError as error:
                self.kill(worker)
                return StartFailed(worker, _cause(error))
            return Started(worker, facts)
        worker, shard = self._running.pop(ref)
        try:
            report, warnings = ray.get(ref)
        except RayTaskError as error:
            return Raised(worker, shard, _cause(error))
        except RayError as error:
            self.kill(worker)
            return Died(worker, f"its worker process died ({type(error).__name__})")
        for text in warnings:
            logger.warning("worker %d, by shard %d: %s", worker, shard, text)
        return Finished(worker, shard, report)

    def kill(self, worker: int) -> None:
        """SIGKILL the actor and forget what it was given."""
        actor = self._actors.pop(worker, None)
        if actor is not None:
            with contextlib.suppress(RayError, ValueError):
                ray.kill(actor)
        self._loading = {ref: w for ref, w in self._loading.items() if w != worker}
        self._running = {ref: (w, s) for ref, (w, s) in self._running.items() if w != worker}

    def close(self) -> None:
        """Kill all actors; leave or end Ray if this executor joined or started it."""
        for worker in list(self._actors):
            self.kill(worker)
        if self._ours and ray.is_initialized():
            ray.shutdown()

    def _connect(self, run_config: RunConfig) -> None:
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
        if run_config.ray_address is None:
            # Never a bare `ray.init()`: it would join a cluster it happens to find. On one machine
            # the user's number of workers counts, not the number of cores.
            quiet |= {
                "address": "local",
                "num_cpus": max(os.cpu_count() or 1, run_config.workers * self._cpus),
                "include_dashboard": False,
                "object_store_memory": _OBJECT_STORE_BYTES,
            }
        else:
            quiet["address"] = run_config.ray_address
        try:
            _require_listener(run_config.ray_address)
            ray.init(**quiet)
        except (RuntimeError, ValueError, OSError, OverflowError) as error:
            where = run_config.ray_address or "a local Ray"
            raise DriverError(f"cannot start or join Ray at {where}: {error}") from error

    def _places(self, asked: int) -> int:
        """Workers that fit, after capping their CPUs at what the largest node has."""
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        gpus = sum(node.get("GPU", 0) for node in nodes)
        if self._gpus and _fits(nodes, 0, self._gpus) < asked:
            raise DriverError(
                f"{asked} worker(s) with {self._gpus:g} GPU(s) each do not fit: the cluster has "
                f"{gpus:g} GPU(s) on {len(nodes)} node(s). Lower --workers or --gpus-per-worker, "
                "or run on the CPU with --gpus-per-worker 0"
            )
        if gpus and not self._gpus:
            logger.warning("%g GPU(s) stay unused: --gpus-per-worker is 0", gpus)
        usable = [node for node in nodes if node.get("GPU", 0) >= self._gpus]
        self._cpus = min(self._cpus, int(max((n.get("CPU", 0) for n in usable), default=0)))
        fits = _fits(nodes, self._cpus, self._gpus)
        if self._cpus < 1 or fits < 1:
            raise DriverError(f"the cluster of {len(nodes)} node(s) has no CPU for a worker")
        if fits < asked:
            logger.warning(
                "%d of %d workers fit now: each reserves %d CPU(s); the others start when there "
                "is room (lower --threads or --decode-workers to fit more)",
                fits,
                asked,
                self._cpus,
            )
        return asked


def _require_listener(address: str | None) -> None:
    """Raise `OSError` at once where nothing listens; Ray itself goes on trying for minutes."""
    found = re.fullmatch(r"(?:ray://)?\[?([^/\[\]]+)\]?:(\d+)", address or "")
    if found:
        socket.create_connection((found[1], int(found[2])), timeout=_CONNECT_S).close()


def _fits(nodes: list[dict[str, float]], cpus: float, gpus: float) -> int:
    """Workers that fit on these nodes, each inside one node."""
    total = 0
    for node in nodes:
        per = [int(node.get("CPU", 0) // cpus)] if cpus else []
        per += [_gpu_places(node.get("GPU", 0), gpus)] if gpus else []
        total += min(per, default=0)
    return total


def _gpu_places(have: float, each: float) -> int:
    # A share of a GPU must come from one GPU: 3 x 0.4 do not fit on one.
    return int(have // each) if each >= 1 else int(have) * int(1 / each + 1e-9)


def _cause(error: RayError) -> Exception:
    cause = getattr(error, "cause", None)
    return cause if isinstance(cause, Exception) else error
