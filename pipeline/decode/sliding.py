"""Windows from a decoder process: it may crash or hang, and it never runs ahead of who uses them.

Whoever uses the windows gives a turn for each. Of a file some turns are given ahead, and the
process waits for one before it hands over a window: it works while the model does, and no further.
A live source does not wait: there a window that nobody waits for is lost, and counted.
"""

from __future__ import annotations

import logging
import select
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from typing import Any

from pipeline.decode.backends import crash_of
from pipeline.decode.pipes import PipeClosedError, PipeTimeoutError, receive, send
from pipeline.decode.process import DecoderProcess, ending
from pipeline.decode.windows import Window, WindowRequest, read_windows
from pipeline.errors import ClipStatus, DecodeError, LiteError

logger = logging.getLogger(__name__)

_TURN = "turn"
_AHEAD = 2
"""Windows of a file that are decoded beyond the one in use."""
_GRACE_S = 5.0


@dataclass(frozen=True)
class _Ended:
    """There are no more windows."""

    num_skipped: int
    """Windows of a live source that were lost after the last one."""


def slide(request: WindowRequest) -> Generator[Window, None, None]:
    """The windows of a file or a live source, as they come; see `read_windows`.

    The process ends with the iterator, however that ends.

    Raises:
        DecodeError: the source cannot be read, or no further; `DECODE_TIMEOUT` and `DECODER_DIED`
            where the process hung or crashed.
        ConfigError: the windows do not fit the source.
        DriverError: the process cannot be started.
    """
    child = DecoderProcess()
    try:
        child.wait_until_ready()
        yield from _windows(child, request)
    except PipeTimeoutError:
        raise DecodeError(
            ClipStatus.DECODE_TIMEOUT,
            "the decoder gave no sign of life for long, and was killed",
        ) from None
    except PipeClosedError:
        raise DecodeError(
            ClipStatus.DECODER_DIED, f"the decoder process died {ending(child.wait())} on it"
        ) from None
    finally:
        child.kill()
        child.wait()


def _windows(child: DecoderProcess, request: WindowRequest) -> Iterator[Window]:
    send(child.requests, request)
    for _ in range(0 if request.live else _AHEAD):
        send(child.requests, _TURN)
    # Twice, as opening an address and finding out what it sends take up to a limit each.
    limit_s = 2 * request.clip.timeout_s + _GRACE_S
    while True:
        send(child.requests, _TURN)
        while (answer := receive(child.answers, limit_s)) is None:
            pass
        if isinstance(answer, LiteError):
            raise answer
        if isinstance(answer, _Ended):
            if answer.num_skipped:
                logger.warning(
                    "%s: the last %d windows before its end were lost, as nobody had time for them",
                    request.clip.path,
                    answer.num_skipped,
                )
            return
        yield answer


def serve_windows(request: WindowRequest, requests: int, answers: int) -> None:
    """The process's part.

    Args:
        request: what was asked.
        requests: descriptor that the turns come from.
        answers: descriptor that the windows go to.

    Raises:
        PipeClosedError: nobody is there any more.
    """
    answer: Any
    num_skipped = 0
    try:
        for window in read_windows(request):
            if window is None:
                send(answers, None)
            elif request.live and not select.select([requests], [], [], 0)[0]:
                num_skipped += 1
            else:
                receive(requests)
                send(answers, replace(window, num_skipped=num_skipped))
                num_skipped = 0
        answer = _Ended(num_skipped)
    except (PipeClosedError, BrokenPipeError):
        raise
    except LiteError as error:
        answer = error
    except Exception as error:
        answer = crash_of(request.clip, error)
    send(answers, answer)
