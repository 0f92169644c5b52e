"""Shards that lost their worker, done at the end of a run in a process of their own.

A dead process leaves no message, but its parent sees how it ended. So the process that does such a
shard has a parent that only watches, and that is told before every step which clips are in work:

* Killed from outside (SIGKILL or SIGTERM: memory ran out, the machine was wanted for other work)
  says nothing about clips. The shard is begun anew, a bounded number of times; then it is left to
  the next run, and nothing of it is recorded.
* Crashed (SIGSEGV, an exit) or hung with several clips in work: they are then tried one at a time.
* Crashed or hung with one clip in work, twice: the clip is recorded as `worker_died` and left out.

A crash costs a new process, and no other clip its result.
"""

from __future__ import annotations

import logging
import os
import pickle
import sys
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pipeline.config import RunConfig
from pipeline.decode.child import end_with, own_pipes
from pipeline.decode.pipes import PipeClosedError, PipeTimeoutError, receive, send
from pipeline.decode.process import ChildProcess, ending, was_killed_from_outside
from pipeline.errors import DriverError, ShardError
from pipeline.shards.executor import Attempt, Isolation, Worker

logger = logging.getLogger(__name__)

MAX_KILLS = 12
CRASHES_TO_BLAME = 2
MAX_BLAMED = 8
"""More than this in one shard is no matter of clips."""


class IsolatedWorker:
    """A worker inside a child process, which is replaced when it dies.

    Args:
        make_worker: picklable; called in the child.
        run_config: time limit and number of attempts.

    Raises:
        DriverError: the child does not start.
        Exception: what `make_worker` raised.
    """

    def __init__(self, make_worker: Callable[[], Worker[Any]], run_config: RunConfig) -> None:
        self._make_worker, self._run_config = make_worker, run_config
        self._child: ChildProcess | None = None
        deaths = 0
        while self._child is None:
            try:
                self.facts: dict[str, Any] = self._start()
            except _DeathError as death:
                deaths += 1
                if deaths >= (MAX_KILLS if death.from_outside else 1):
                    raise DriverError(
                        f"a worker in a process of its own does not start: {death}"
                    ) from None

    def run(self, shard: int, attempt: Attempt) -> Any:
        """Run one shard, as often as it takes to know which clips crash; its report.

        Raises:
            ShardError: it cannot be done here; the message says what the process died of.
            Exception: what the worker raised.
        """
        search = _Search(self._run_config)
        while True:
            try:
                return self._try(shard, attempt, search)
            except _DeathError as death:
                logger.warning("shard %d, in a process of its own: %s", shard, death)
                search.learn(death)

    def close(self) -> None:
        """Kill the child."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            self._child = None

    def _start(self) -> Any:
        child = self._child = ChildProcess("pipeline.shards.isolated")
        try:
            send(child.requests, self._make_worker)
            return self._answer(child, [], None)
        except PipeClosedError:
            raise self._death([]) from None
        except BaseException:
            self.close()
            raise

    def _try(self, shard: int, attempt: Attempt, search: _Search) -> Any:
        if self._child is None:
            self._start()
        child = self._child
        assert child is not None
        in_work: list[int] = []
        limit_s = self._run_config.shard_timeout_s
        try:
            send(child.requests, (shard, attempt, search.suspects, search.blamed))
            return self._answer(child, in_work, limit_s)
        except PipeTimeoutError:
            self.close()
            raise _DeathError(f"no sign of life for {limit_s:g} s", in_work) from None
        except PipeClosedError:
            raise self._death(in_work) from None

    def _death(self, in_work: Sequence[int]) -> _DeathError:
        child, self._child = self._child, None
        assert child is not None
        code = child.wait()
        outside = was_killed_from_outside(code)
        return _DeathError(f"it ended {ending(code)}", in_work, from_outside=outside)

    def _answer(self, child: ChildProcess, in_work: list[int], limit_s: float | None) -> Any:
        """What a call in the child returns; `in_work` follows the clips that it names."""
        while True:
            kind, value = receive(child.answers, limit_s)
            if kind == "in work":
                in_work[:] = value
            elif kind == "warning":
                logger.warning("%s", value)
            elif kind == "raised":
                raise value
            else:
                return value


class _DeathError(Exception):
    """The child died with these clips in work."""

    def __init__(self, how: str, in_work: Sequence[int], *, from_outside: bool = False) -> None:
        clips = f"clip {in_work[0]}" if len(in_work) == 1 else f"{len(in_work)} clips"
        super().__init__(f"{how}, with {clips} in work" if in_work else how)
        self.in_work, self.from_outside = tuple(in_work), from_outside


@dataclass
class _Search:
    """What the deaths of one shard's processes have taught; clips are named by `clip_id`."""

    run_config: RunConfig
    suspects: set[int] = field(default_factory=set)
    crashes: Counter[int] = field(default_factory=Counter)
    kills: int = 0
    unexplained: int = 0

    @property
    def blamed(self) -> set[int]:
        """Clips to leave out from now on."""
        return {clip for clip, times in self.crashes.items() if times >= CRASHES_TO_BLAME}

    def learn(self, death: _DeathError) -> None:
        """Take in one death.

        Raises:
            ShardError: there is nothing more to try.
        """
        if death.from_outside and not self.run_config.accept_killed:
            self.kills += 1
            if self.kills >= MAX_KILLS:
                raise ShardError(
                    f"its process was killed from outside {self.kills} times, at last: {death}. A "
                    "system does that when its memory runs out. No clip is blamed: run the same "
                    "command again, with --accept-killed to record a clip that this befalls"
                )
        elif len(death.in_work) > 1 and not self.suspects.issuperset(death.in_work):
            self.suspects.update(death.in_work)
        elif len(death.in_work) == 1 and len(self.blamed) < MAX_BLAMED:
            self.crashes[death.in_work[0]] += 1
        else:
            self.unexplained += 1
            if self.unexplained >= self.run_config.max_attempts:
                raise ShardError(f"its process died {self.unexplained} times, at last: {death}")


class _Child(logging.Handler):
    """The child's end: runs what is asked for until the input ends, and passes warnings on."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._requests, self._answers = own_pipes()
        self._one_at_a_time = threading.Lock()

    def serve(self) -> None:
        """Answer requests; the first one makes the worker."""
        try:
            worker: Worker[Any] = receive(self._requests)()
        except Exception as error:
            self._raised(error)
            return
        self._say("ready", worker.facts)
        while True:
            shard, attempt, suspects, blamed = receive(self._requests)
            isolation = Isolation(suspects, blamed, lambda clips: self._say("in work", [*clips]))
            try:
                report = worker.run(shard, replace(attempt, isolation=isolation))
            except Exception as error:
                self._raised(error)
            else:
                self._say("report", report)

    def emit(self, record: logging.LogRecord) -> None:
        """Pass a warning on."""
        self._say("warning", record.getMessage())

    def _raised(self, error: Exception) -> None:
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:  # a library's exception that does not survive the way
            error = RuntimeError(f"{type(error).__name__}: {error}")
        self._say("raised", error)

    def _say(self, kind: str, value: Any) -> None:
        with self._one_at_a_time:
            send(self._answers, (kind, value))


def main(parent: int) -> None:
    """Be the child of the process `parent`."""
    end_with(parent)
    child = _Child()
    for package in ("pipeline", "selector"):
        logging.getLogger(package).addHandler(child)
    try:
        child.serve()
    except PipeClosedError:
        os._exit(0)  # the parent is gone: nobody waits for an orderly end


if __name__ == "__main__":
    main(int(sys.argv[1]))
