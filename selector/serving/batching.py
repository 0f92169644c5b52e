"""Requests that wait for the model, classified together.

A batch is what waits when the model is free, up to a limit, after a short window in which more may
arrive. Where the model's process dies, each video of the batch is tried once more, alone: one that
crashes the model takes no other with it twice.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

from pipeline.decode import DecodedVideo
from pipeline.errors import DecodeError
from selector.serving.limits import Limits
from selector.serving.messages import Answer
from selector.serving.metrics import Metrics
from selector.serving.process import ModelLostError

logger = logging.getLogger(__name__)

_LOOK_EVERY_S = 1.0
"""An idle model's process is looked after so often."""


class Model(Protocol):
    """What `ModelProcess` does."""

    def submit(self, videos: Sequence[DecodedVideo]) -> Future[list[Answer | DecodeError]]:
        """Classify videos in one batch; the future may raise `ModelLostError`."""

    def revive(self) -> Future[None]:
        """Replace the process if it died."""


@dataclass(frozen=True, eq=False)
class _Waiting:
    video: DecodedVideo
    answer: asyncio.Future[Answer | DecodeError]


class Batcher:
    """Hands one model the videos of many requests; `run` must be running.

    Args:
        model: answers batches.
        limits: how large a batch is, and how long it waits.
        metrics: told of every batch.
    """

    def __init__(self, model: Model, limits: Limits, metrics: Metrics) -> None:
        self._model, self._limits, self._metrics = model, limits, metrics
        self._waiting: deque[_Waiting] = deque()
        self._arrived = asyncio.Event()

    async def classify(self, video: DecodedVideo) -> Answer | DecodeError:
        """The model's answer for one video; cancelled, the video leaves the queue.

        Raises:
            ModelLostError: the model's process died on it twice.
            LiteError: the model's process cannot be started again.
        """
        waiting = _Waiting(video, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        self._arrived.set()
        return await waiting.answer

    async def run(self) -> None:
        """Answer for ever."""
        while True:
            if not self._waiting:
                await self._rest()
                continue
            if len(self._waiting) < self._limits.max_batch:
                await asyncio.sleep(self._limits.window_s)
            batch: list[_Waiting] = []
            while self._waiting and len(batch) < self._limits.max_batch:
                one = self._waiting.popleft()
                if not one.answer.done():  # else its request has given up
                    batch.append(one)
            if batch:
                await self._answer(batch, may_retry=True)

    async def _rest(self) -> None:
        """Wait for a video, and see meanwhile that the model's process lives."""
        self._arrived.clear()
        try:
            async with asyncio.timeout(_LOOK_EVERY_S):
                await self._arrived.wait()
        except TimeoutError:
            try:
                await asyncio.wrap_future(self._model.revive())
            except Exception:
                logger.exception("the model's process does not come back; it is tried again")

    async def _answer(self, batch: Sequence[_Waiting], *, may_retry: bool) -> None:
        self._metrics.batch_size.observe(len(batch))
        try:
            answers = await asyncio.wrap_future(self._model.submit([one.video for one in batch]))
        except ModelLostError as lost:
            if may_retry:
                for one in [one for one in batch if not one.answer.done()]:
                    await self._answer([one], may_retry=False)
                return
            _fail(batch, lost)
        except Exception as error:
            _fail(batch, error)
        else:
            for one, answer in zip(batch, answers, strict=True):
                if not one.answer.done():
                    one.answer.set_result(answer)


def _fail(batch: Sequence[_Waiting], error: Exception) -> None:
    for one in batch:
        if not one.answer.done():
            one.answer.set_exception(error)
