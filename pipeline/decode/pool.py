"""Decoder processes that may crash or hang without harm to their neighbours or to this process."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import Self

from pipeline.decode.backends import decode_video
from pipeline.decode.pipes import PipeClosedError, PipeTimeoutError
from pipeline.decode.process import DecoderProcess, ending, was_killed_from_outside
from pipeline.decode.request import DecodedVideo, DecodeRequest
from pipeline.errors import ClipStatus, ConfigError, DecodeError, DriverError, LostProcessError

logger = logging.getLogger(__name__)

Decoded = DecodedVideo | DecodeError

# What a child gets beyond a request's own time limit, which PyAV keeps by itself.
_GRACE_S = 5.0
_MAX_TRIES = 2
_WAITS_S = (0.0, 1.0, 5.0)
"""Before each further try of a request whose child was killed from outside."""
_KILLED = "the decoder process was killed from outside on this video, every time that it was alone"


class DecodePool:
    """Decodes requests in `num_workers` child processes, each one request at a time.

    A child that crashes, or does not answer in time, is replaced and its request tried once more;
    then it is a `DecodeError` with status `DECODER_DIED` or `DECODE_TIMEOUT`. A child that was
    killed from outside (SIGKILL by a system without memory, SIGTERM, ...) says nothing about its
    request, and is never a `DecodeError`: the request is tried three times more, and after that
    the iterator raises `LostProcessError`. What was to be recorded of the requests must then be
    done again, in another pool or at another time. After any death the request is tried alone:
    the pool's other children rest meanwhile.

    Children start with the first requests. May be used from any thread. Use as a context manager,
    or call `close()`: no process is left then. A child takes 2 s to start and holds 0.3 GB, mostly
    torch.

    Args:
        num_workers: child processes; 0 decodes in this process, when the result is asked for
            (except decord, which always gets a child).
        kill_after_s: seconds after which a child is killed; by default 5 more than the request's
            `timeout_s`.
        accept_killed: whether a request whose children are killed from outside every time is a
            `DecodeError` all the same, with status `DECODER_DIED`.
    """

    def __init__(
        self, num_workers: int, kill_after_s: float | None = None, *, accept_killed: bool = False
    ) -> None:
        if num_workers < 0:
            raise ConfigError(f"num_workers must not be negative, got {num_workers!r}")
        if kill_after_s is not None and not kill_after_s > 0:
            raise ConfigError(f"kill_after_s must be above 0 seconds, got {kill_after_s!r}")
        self._num_workers = num_workers
        self._kill_after_s, self._accept_killed = kill_after_s, accept_killed
        # The thread that starts a child must outlive it: Linux sends the parent-death signal when
        # that *thread* ends. These threads last as long as the pool, and sleep while they wait.
        self._threads = ThreadPoolExecutor(max(num_workers, 1), thread_name_prefix="decode")
        self._local = threading.local()
        self._lock = threading.Lock()
        self._children: set[DecoderProcess] = set()
        self._closed = threading.Event()
        self._turns = _Turns()

    def imap(
        self, requests: Iterable[DecodeRequest], look_ahead: int | None = None
    ) -> Iterator[Decoded]:
        """Decode `requests`; results come in their order, failures as values.

        The first `look_ahead` requests are handed out at once, before the first result is asked
        for, and one more with every result taken. So a caller keeps the decoders busy across
        shards by calling `imap` for the next shard before it has read this one to its end.

        Args:
            requests: read lazily, in the caller's thread.
            look_ahead: requests under way or done but not yet taken, at most: what the memory is
                bounded by. Default: two per worker.

        Raises:
            DriverError: decoder processes cannot be started.
            ConfigError: the backend cannot be used.
            LostProcessError: the children of a request were killed from outside every time.
        """
        if self._num_workers == 0:
            return map(self._decode_inline, requests)
        if look_ahead is None:
            look_ahead = 2 * self._num_workers
        if look_ahead < 1:
            raise ConfigError(f"look_ahead must be at least 1, got {look_ahead!r}")
        rest = iter(requests)
        pending = deque(self.submit(request) for request in islice(rest, look_ahead))
        return self._results(pending, rest)

    def _results(
        self, pending: deque[Future[Decoded]], rest: Iterator[DecodeRequest]
    ) -> Iterator[Decoded]:
        try:
            while pending:
                result = pending.popleft().result()
                pending.extend(self.submit(request) for request in islice(rest, 1))
                yield result
        finally:
            for future in pending:
                future.cancel()

    def submit(self, request: DecodeRequest) -> Future[Decoded]:
        """Decode one request in a child process, as soon as one is free.

        Its result is that of `imap`, and its exceptions are; one that waits may be cancelled.

        Raises:
            DriverError: the pool is closed.
        """
        if self._closed.is_set():
            raise DriverError("the decode pool is closed")
        return self._threads.submit(self._decode, request)

    def _decode_inline(self, request: DecodeRequest) -> Decoded:
        if request.decoder == "decord":
            return self.submit(request).result()
        try:
            return decode_video(request)
        except DecodeError as error:
            return error

    def pids(self) -> list[int]:
        """The process ids of the children that are running now."""
        with self._lock:
            return sorted(child.pid for child in self._children)

    def close(self) -> None:
        """Stop at once: kill the children, cancel what waits, join the threads."""
        with self._lock:
            self._closed.set()
            for child in self._children:
                child.kill()
        self._threads.shutdown(wait=True, cancel_futures=True)
        for child in self._children:
            child.wait()
        self._children.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _decode(self, request: DecodeRequest) -> Decoded:
        """In a thread of the pool: decode, and try again where that cost a child."""
        failures: list[DecodeError] = []
        waits = iter(_WAITS_S)
        alone = False
        while len(failures) < _MAX_TRIES:
            try:
                with self._turns.taking(alone=alone):
                    return self._ask(request)
            except DecodeError as failure:
                logger.warning("%s: %s", request.path, failure)
                failures.append(failure)
                alone = failure.status is ClipStatus.DECODER_DIED
            except LostProcessError as loss:
                logger.warning("%s", loss)
                wait_s = next(waits, None)
                if wait_s is None and self._accept_killed:
                    return DecodeError(ClipStatus.DECODER_DIED, _KILLED)
                if wait_s is None:
                    raise
                alone = True
                self._closed.wait(wait_s)
        return failures[-1]

    def _ask(self, request: DecodeRequest) -> Decoded:
        """Decode with this thread's child.

        Raises:
            DecodeError: the child crashed, or did not answer in time.
            LostProcessError: the child was killed from outside.
        """
        limit_s = self._kill_after_s or request.timeout_s + _GRACE_S
        try:
            return self._child().ask(request, limit_s)
        except PipeTimeoutError:
            self._discard()
            raise DecodeError(
                ClipStatus.DECODE_TIMEOUT,
                f"{request.decoder} did not answer within {limit_s:g} s and was killed",
            ) from None
        except PipeClosedError:
            exit_code = self._discard()
        how = ending(exit_code)
        if was_killed_from_outside(exit_code):
            raise LostProcessError(
                f"the decoder process of {request.path} was ended from outside, {how}: where the "
                "system did so for want of memory, lower --decode-workers or --workers"
            )
        raise DecodeError(
            ClipStatus.DECODER_DIED, f"the {request.decoder} process died {how} on this video"
        )

    def _child(self) -> DecoderProcess:
        child: DecoderProcess | None = getattr(self._local, "child", None)
        if child is None:
            with self._lock:  # so that `close` sees every child
                if self._closed.is_set():
                    raise CancelledError
                child = self._local.child = DecoderProcess()
                self._children.add(child)
            try:
                child.wait_until_ready()
            except DriverError:
                self._discard()
                raise
        return child

    def _discard(self) -> int:
        """Kill and forget this thread's child; its exit code."""
        child, self._local.child = self._local.child, None
        child.kill()
        exit_code: int = child.wait()
        with self._lock:
            self._children.discard(child)
            if self._closed.is_set():
                raise CancelledError
        return exit_code


class _Turns:
    """Many at once, or one alone."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._num_taken = 0
        self._reserved = False

    @contextmanager
    def taking(self, *, alone: bool) -> Iterator[None]:
        """Wait for a turn, and have it; who wants to be alone goes before all who come later."""
        with self._changed:
            self._changed.wait_for(lambda: not self._reserved)
            self._reserved = alone
            if alone:
                self._changed.wait_for(lambda: self._num_taken == 0)
            self._num_taken += 1
        try:
            yield
        finally:
            with self._changed:
                self._num_taken -= 1
                if alone:
                    self._reserved = False
                self._changed.notify_all()
