"""Where the seconds of an evaluation go. Measured per shard and kept beside the results.

Timings are side logs: they differ from run to run, and the committed files must not.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field, fields

import torch

from selector.evaluation.config import FULL, EvalConfig


@dataclass
class Timing:
    """Seconds of one worker on some clips.

    It is the model's own time: the processor's clock where one CPU thread does the work, which
    neighbours on a shared machine cannot stretch, and the wall clock on a GPU or with several
    threads.
    """

    clips: int = 0
    """Clips that went through the model, black slots of failed ones included."""
    embed: float = 0.0
    """Normalising and embedding, once for all conditions."""
    rank: dict[str, float] = field(default_factory=dict)
    """Scoring all tokens, by method; once per seed."""
    forward: dict[str, float] = field(default_factory=dict)
    """Choosing, gathering and classifying the kept tokens, by position of the condition."""

    def clips_per_s(self, config: EvalConfig) -> list[float | None]:
        """For each condition, what a model that does only this would reach on one worker.

        Embedding, ranking and classifying count, decoding does not. None where nothing was
        measured.
        """
        several = {str(name) for name in config.names if name.is_random}
        rates: list[float | None] = []
        for i, condition in enumerate(config.conditions):
            seeds = config.num_seeds if condition.method in several else 1
            rank = 0.0 if condition.method == FULL else self.rank.get(condition.method, 0.0) / seeds
            spent = self.embed + rank + self.forward.get(str(i), 0.0)
            rates.append(self.clips / spent if self.clips and spent > 0 else None)
        return rates

    def add(self, other: Timing) -> None:
        """Sums another shard's seconds into these."""
        for name in ("clips", "embed"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in ("rank", "forward"):
            mine = getattr(self, name)
            for key, spent in getattr(other, name).items():
                mine[key] = mine.get(key, 0.0) + spent

    def to_json(self) -> bytes:
        """What `from_json` reads."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_json(cls, text: bytes) -> Timing:
        """The inverse of `to_json`; what else the file says is left out."""
        content = json.loads(text)
        return cls(**{f.name: content[f.name] for f in fields(cls)})


class Stopwatch:
    """Adds elapsed time to a `Timing`; on CUDA it waits for the device's queue."""

    def __init__(self, device: torch.device) -> None:
        self.timing = Timing()
        self._device = device if device.type == "cuda" else None
        alone = self._device is None and torch.get_num_threads() == 1
        self._clock = time.thread_time if alone else time.perf_counter

    def now(self) -> float:
        """The model's time in seconds, once everything submitted is done."""
        if self._device is not None:
            torch.cuda.synchronize(self._device)
        return self._clock()
