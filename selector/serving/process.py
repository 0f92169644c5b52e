"""The server's end of the process that holds the model.

A model can crash its process, hang in it, or be killed with it by a system without memory. The
server lives on: the process is started anew, and what was in work is the caller's to ask again.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from pipeline.decode import DecodedVideo
from pipeline.decode.pipes import PipeClosedError, PipeTimeoutError, receive, send
from pipeline.decode.process import ChildProcess, ending, was_killed_from_outside
from pipeline.errors import DecodeError, DriverError, LiteError
from selector.serving.messages import Answer, ModelOptions

logger = logging.getLogger(__name__)

_START_LIMIT_S = 600.0
_MAX_STARTS = 3


class ModelLostError(LiteError):
    """The model's process died or hung while it worked; it is replaced."""


class ModelProcess:
    """A model in a child process, which is replaced when it dies.

    One thread starts the child and asks it: Linux ends a child with the thread that started it.

    Args:
        options: which model.
        answer_limit_s: seconds after which a child that does not answer is killed.
        on_restart: called when a child was replaced.
        keep_spare: load the model in a second child too, which takes the place of one that dies.

    Raises:
        ConfigError: the model cannot be used as asked; and what else loading it raises.
        DriverError: the child does not start.
    """

    def __init__(
        self,
        options: ModelOptions,
        answer_limit_s: float,
        on_restart: Callable[[], object] = lambda: None,
        *,
        keep_spare: bool = False,
    ) -> None:
        self._options, self._answer_limit_s, self._on_restart = options, answer_limit_s, on_restart
        self._keep_spare = keep_spare
        self._child: ChildProcess | None = None
        self._spare: ChildProcess | None = None
        self._is_loaded = self._closed = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        try:
            self.facts: dict[str, Any] = self._thread.submit(self._start).result()
        except BaseException:
            self.close()
            raise

    @property
    def is_ready(self) -> bool:
        """Whether the model is loaded, and its process lives."""
        child = self._child
        return self._is_loaded and child is not None and child.is_running

    def submit(self, videos: Sequence[DecodedVideo]) -> Future[list[Answer | DecodeError]]:
        """Classify videos in one batch.

        The future raises `ModelLostError` where the process died or hung: it is replaced with the
        next call, and nothing is known of these videos.
        """
        return self._thread.submit(self._ask, videos)

    def revive(self) -> Future[None]:
        """Replace the process if it died."""
        return self._thread.submit(self._revive)

    def close(self) -> None:
        """Kill the process."""
        self._closed = True
        child = self._child
        if child is not None:
            child.kill()
        self._thread.shutdown(wait=True, cancel_futures=True)
        if self._child is not None:
            self._discard()
        if self._spare is not None:
            self._spare.kill()
            self._spare.wait()

    def _start(self) -> dict[str, Any]:
        """Start a child and wait until its model is loaded; what it says of the model."""
        for _ in range(_MAX_STARTS):
            self._child = child = self._taken_spare() or self._launched()
            if self._closed:
                child.kill()
            try:
                answer = receive(child.answers, _START_LIMIT_S)
            except (PipeClosedError, PipeTimeoutError):
                code = self._discard()
                if was_killed_from_outside(code) and not self._closed:
                    logger.warning("the model's process ended %s while it started", ending(code))
                    continue
                break
            if isinstance(answer, Exception):
                self._discard()
                raise answer
            self._is_loaded = True
            if self._keep_spare:
                self._spare = self._launched()
            facts: dict[str, Any] = answer
            return facts
        raise DriverError(
            f"the model's process does not start: it ended {ending(code)}; what it wrote to "
            "standard error says why"
        )

    def _launched(self) -> ChildProcess:
        """A child that begins to load the model; what it says of it is not waited for."""
        child = ChildProcess("selector.serving.child")
        with contextlib.suppress(PipeClosedError):  # who reads from it sees that
            send(child.requests, self._options)
        return child

    def _taken_spare(self) -> ChildProcess | None:
        spare, self._spare = self._spare, None
        if spare is None or spare.is_running:
            return spare
        logger.warning("the model's spare process ended %s", ending(spare.wait()))
        return None

    def _revive(self) -> None:
        if self._child is not None and not self._child.is_running:
            logger.warning("the model's process ended %s", ending(self._discard()))
        if self._child is None:
            self.facts = self._start()
            self._on_restart()

    def _ask(self, videos: Sequence[DecodedVideo]) -> list[Answer | DecodeError]:
        self._revive()
        child = self._child
        assert child is not None
        # Not a limit of `receive` alone: a process that was stopped does not read either.
        watchdog = threading.Timer(self._answer_limit_s, child.kill)
        watchdog.start()
        try:
            send(child.requests, list(videos))
            answers: list[Answer | DecodeError] = receive(child.answers)
            return answers
        except PipeClosedError:
            hung, how = not watchdog.is_alive(), ending(self._discard())
        finally:
            watchdog.cancel()
        if hung:
            how = f"without an answer within {self._answer_limit_s:g} s"
        logger.warning("the model's process ended %s, with %d videos in work", how, len(videos))
        raise ModelLostError(f"the model's process ended {how}")

    def _discard(self) -> int:
        """Kill and forget the child; its exit code."""
        child, self._child, self._is_loaded = self._child, None, False
        assert child is not None
        child.kill()
        return child.wait()
