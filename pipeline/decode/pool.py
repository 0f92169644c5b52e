"""Decoder processes that may crash or hang without harm to their neighbours or to this process."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from itertools import islice
from typing import Self

from pipeline.decode.backends import decode_video
from pipeline.decode.pipes import PipeClosedError, PipeTimeoutError
from pipeline.decode.process import DecoderProcess, ending
from pipeline.decode.request import DecodedVideo, DecodeRequest
from pipeline.errors import ClipStatus, ConfigError, DecodeError, DriverError

logger = logging.getLogger(__name__)

Decoded = DecodedVideo | DecodeError

# What a child gets beyond a request's own time limit, which PyAV keeps by itself.
_GRACE_S = 5.0
_MAX_TRIES = 2


class DecodePool:
    """Decodes requests in `num_workers` child processes, each one request at a time.

    A child that dies, or does not answer in time, is killed and replaced, and its request tried
    once more; then it is a `DecodeError` with status `DECODER_DIED` or `DECODE_TIMEOUT`. Children
    start with the first requests. May be used from any thread. Use as a context manager, or call
    `close()`: no process is left then. A child takes 2 s to start and holds 0.3 GB, mostly torch.

    Args:
        num_workers: child processes; 0 decodes in this process, when the result is asked for
            (except decord, which always gets a child).
        kill_after_s: seconds after which a child is killed; by default 5 more than the request's
            `timeout_s`.
    """

    def __init__(self, num_workers: int, kill_after_s: float | None = None) -> None:
        if num_workers < 0:
            raise ConfigError(f"num_workers must not be negative, got {num_workers!r}")
        if kill_after_s is not None and not kill_after_s > 0:
            raise ConfigError(f"kill_after_s must be above 0 seconds, got {kill_after_s!r}")
        self._num_workers = num_workers
        self._kill_after_s = kill_after_s
        # The thread that starts a child must outlive it: Linux sends the parent-death signal when
        # that *thread* ends. These threads last as long as the pool, and sleep while they wait.
        self._threads = ThreadPoolExecutor(max(num_workers, 1), thread_name_prefix="decode")
        self._local = threading.local()
        self._lock = threading.Lock()
        self._children: set[DecoderProcess] = set()
        self._closed = False

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
        """
        if self._num_workers == 0:
            return map(self._decode_inline, requests)
        if look_ahead is None:
            look_ahead = 2 * self._num_workers
        if look_ahead < 1:
            raise ConfigError(f"look_ahead must be at least 1, got {look_ahead!r}")
        rest = iter(requests)
        pending = deque(self._submit(request) for request in islice(rest, look_ahead))
        return self._results(pending, rest)

    def _results(
        self, pending: deque[Future[Decoded]], rest: Iterator[DecodeRequest]
    ) -> Iterator[Decoded]:
        try:
            while pending:
                result = pending.popleft().result()
                pending.extend(self._submit(request) for request in islice(rest, 1))
                yield result
        finally:
            for future in pending:
                future.cancel()

    def _submit(self, request: DecodeRequest) -> Future[Decoded]:
        if self._closed:
            raise DriverError("the decode pool is closed")
        return self._threads.submit(self._decode, request)

    def _decode_inline(self, request: DecodeRequest) -> Decoded:
        if request.decoder == "decord":
            return self._submit(request).result()
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
            self._closed = True
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
        """In a thread of the pool: decode with this thread's child."""
        limit_s = self._kill_after_s or request.timeout_s + _GRACE_S
        failure = DecodeError(ClipStatus.DECODER_DIED, "not tried")
        for attempt in range(1, _MAX_TRIES + 1):
            child = self._child()
            try:
                return child.ask(request, limit_s)
            except PipeTimeoutError:
                self._discard(child)
                failure = DecodeError(
                    ClipStatus.DECODE_TIMEOUT,
                    f"{request.decoder} did not answer within {limit_s:g} s and was killed",
                )
            except PipeClosedError:
                failure = DecodeError(
                    ClipStatus.DECODER_DIED,
                    f"the {request.decoder} process died {ending(self._discard(child))} on this "
                    "video",
                )
            logger.warning("%s: %s (attempt %d)", request.path, failure, attempt)
        return failure

    def _child(self) -> DecoderProcess:
        child: DecoderProcess | None = getattr(self._local, "child", None)
        if child is None:
            with self._lock:  # so that `close` sees every child
                if self._closed:
                    raise CancelledError
                child = DecoderProcess()
                self._children.add(child)
            child.wait_until_ready()
            self._local.child = child
        return child

    def _discard(self, child: DecoderProcess) -> int:
        """Kill and forget a child; its exit code."""
        self._local.child = None
        child.kill()
        exit_code = child.wait()
        with self._lock:
            self._children.discard(child)
            if self._closed:
                raise CancelledError
        return exit_code
