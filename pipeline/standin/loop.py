"""What all trainings of a backbone share: seeded steps, the loop, its log, and decoding ahead.

Step `s` depends on the settings and on `s` alone (its generators are seeded by both), so a resumed
training equals one that was never interrupted.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch

from pipeline.decode import DecodePool, DecodeRequest
from pipeline.errors import DecodeError
from pipeline.store.root import write_file

logger = logging.getLogger(__name__)

LOG = "log.jsonl"
BETAS = (0.9, 0.98)
"""AdamW's."""

OnProgress = Callable[[int, int], None]
"""Called with (items done, items in all)."""


@dataclass(frozen=True)
class Schedule:
    """How often a training pauses to look at itself; changes no weight."""

    validate_every: int = 500
    save_every: int = 100
    validation_clips: int = 1000


class Recipe(Protocol):
    """What decides the learning rate, of any training's settings."""

    @property
    def steps(self) -> int:
        """Optimiser steps."""

    @property
    def learning_rate(self) -> float:
        """Of the constant part."""

    @property
    def warmup_steps(self) -> int:
        """Steps before that."""

    @property
    def decay_share(self) -> float:
        """Share of the steps after it."""


class Training(Protocol):
    """What `advance` moves forward.

    Attributes:
        step: steps done.
        num_steps: steps to do.
    """

    step: int

    @property
    def num_steps(self) -> int:
        """Steps to do."""

    def train_step(self) -> float:
        """One optimiser step; returns its loss."""

    def look(self, loss: float, seconds: float) -> bool:
        """Validate and log; whether to go on.

        Args:
            loss: mean over the steps since the last look.
            seconds: since this run began.
        """

    def save(self) -> None:
        """Write what a later run needs to go on from here."""


def advance(training: Training, schedule: Schedule, on_step: Callable[[int, float], None]) -> None:
    """Trains to the last step, or until a look says that it is enough.

    Args:
        training: at any step.
        schedule: when it looks and saves; the last step does both.
        on_step: called with (steps done, loss of the last one).
    """
    losses: list[float] = []
    began = time.monotonic()
    while training.step < training.num_steps:
        losses.append(training.train_step())
        last = training.step == training.num_steps
        on_step(training.step, losses[-1])
        if last or training.step % schedule.validate_every == 0:
            last |= not training.look(float(np.mean(losses)), time.monotonic() - began)
            losses.clear()
        if last or training.step % schedule.save_every == 0:
            training.save()
        if last:
            break


def seeded(seed: int, stream: int, number: int) -> torch.Generator:
    """An independent generator for each (stream, number): batches, augmentation, validation."""
    state = np.random.SeedSequence([seed, stream, number]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> 1))


def batch_rows(seed: int, step: int, num_clips: int, batch_size: int) -> np.ndarray:
    """The clips of a step, int64, ascending: each epoch is another order, without its remainder."""
    size = min(batch_size, num_clips)
    epoch, place = divmod(step, num_clips // size)
    order = torch.randperm(num_clips, generator=seeded(seed, 0, epoch))
    rows: np.ndarray = np.sort(order[place * size : (place + 1) * size].numpy())
    return rows


def cosine(done: float) -> float:
    """A half cosine from 1 to 0; `done` from 0 to 1."""
    return 0.5 * (1.0 + math.cos(math.pi * done))


def add_to_log(out: Path, entry: dict[str, Any]) -> None:
    """Adds one point to the validation curve."""
    with (out / LOG).open("a") as file:
        file.write(json.dumps(entry) + "\n")


def read_log(out: Path) -> Iterator[dict[str, Any]]:
    """The validation curve of a training, oldest first."""
    with (out / LOG).open() as file:
        for line in file:
            yield json.loads(line)


def forget_after(out: Path, step: int) -> None:
    """Drops the log's lines of steps that will be done again."""
    path = out / LOG
    if path.is_file():
        kept = [json.dumps(entry) + "\n" for entry in read_log(out) if entry["step"] <= step]
        write_file(path, "".join(kept).encode())


class Decoded(NamedTuple):
    """One video whose clip was decoded.

    Attributes:
        position: of its request.
        num_frames_total: frames in the video.
    """

    position: int
    num_frames_total: int


def decode_into(
    path: Path, requests: Sequence[DecodeRequest], workers: int, on_progress: OnProgress
) -> list[Decoded]:
    """Decodes the first view of every request into one array; what fails is left out and named.

    Args:
        path: where a uint8 `.npy` of (n, num_frames, size, size, 3) goes, n the requests; the clips
            that were decoded come first.
        requests: all of the same size.
        workers: decoder processes; 0 decodes in this one.
        on_progress: see `OnProgress`.

    Returns:
        The decoded ones, in order.
    """
    if not requests:
        return []
    first = requests[0]
    shape = (len(requests), first.num_frames, first.size, first.size, 3)
    frames = np.lib.format.open_memmap(path, "w+", np.uint8, shape)
    kept: list[Decoded] = []
    with DecodePool(workers) as pool:
        results = zip(requests, pool.imap(requests), strict=True)
        for position, (request, decoded) in enumerate(results):
            on_progress(position + 1, len(requests))
            if isinstance(decoded, DecodeError):
                logger.warning("left out %s: %s", request.path, decoded)
                continue
            frames[len(kept)] = decoded.clips[0]
            kept.append(Decoded(position, decoded.num_frames_total))
    frames.flush()
    return kept
