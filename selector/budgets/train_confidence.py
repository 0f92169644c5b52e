"""Trains a MoViNet on a dataset's own clips, to be LITE++'s confidence there, as in the paper.

It learns from what it will see in use: the backbone's clips, thinned and resized by
`ClassifierConfidence.prepare`.

Axes: B clips, T frames, S pixels.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.backbones.base import Backbone
from pipeline.config import require_at_least, require_one_of
from pipeline.errors import ConfigError
from pipeline.standin.checkpoint import load_state, save_state
from pipeline.standin.footage import Footage
from pipeline.standin.loop import Schedule, add_to_log, advance, batch_rows, forget_after, seeded
from pipeline.standin.train import learning_rate
from pipeline.store.root import write_file
from selector.budgets.classifiers import ClassifierConfidence, movinet_input
from selector.budgets.movinet import VARIANTS, MoViNet

WEIGHTS = "movinet.pth"
_VALIDATION_BATCH = 64

Vary = Callable[[Tensor, Tensor, torch.Generator], tuple[Tensor, Tensor]]
"""Frames uint8 (B, T, S, S, 3) and labels (B,), varied as the dataset allows."""


@dataclass(frozen=True, kw_only=True)
class ConfidenceConfig:
    """What decides a training; two runs with equal settings give equal weights.

    Raises:
        ConfigError: a field is outside its range; the message names field and rule.
    """

    dataset: str
    data_digest: str
    """Of ids, labels and splits of the videos."""
    backbone_digest: str
    """Of the backbone whose clips it judges."""
    variant: str = "A0"
    init: str = ""
    """SHA-256 of the state dict that it starts from; empty from scratch."""
    frames: int
    """Of the backbone's, spread evenly."""
    pixels: int
    """Side of what the MoViNet sees."""
    hidden: int = 256
    """Width of the classifier's first layer, from scratch."""
    sampling: str = "uniform"
    image_size: int
    """Side of the backbone's input, at which varied clips come out."""
    flip: bool = False
    """Mirror half of the clips."""
    smallest_crop: float = 0.4
    """Smallest share of the frame that a random crop takes."""
    colour: float = 0.3
    """Largest change of brightness and contrast."""
    label_smoothing: float = 0.1
    steps: int = 3000
    batch_size: int = 32
    learning_rate: float = 3e-3
    warmup_steps: int = 100
    decay_share: float = 0.5
    """Share of the steps, at the end, over which the learning rate falls to zero."""
    weight_decay: float = 0.01
    seed: int = 0

    def __post_init__(self) -> None:
        require_one_of("variant", self.variant, VARIANTS)
        for name in ("frames", "pixels", "hidden", "steps", "batch_size"):
            require_at_least(name, getattr(self, name), 1)
        require_at_least("seed", self.seed, 0)
        if not 0 < self.learning_rate < float("inf"):
            raise ConfigError(f"learning_rate must be above 0, got {self.learning_rate!r}")

    def to_dict(self) -> dict[str, Any]:
        """All fields as plain JSON values."""
        return asdict(self)


def with_classes(model: MoViNet, num_classes: int, seed: int) -> MoViNet:
    """The same with a fresh last layer where it has another number of classes."""
    unit: Any = model.classifier[-1]
    last = unit.conv_1["conv3d"]
    if last.out_channels != num_classes:
        torch.manual_seed(seed)
        unit.conv_1["conv3d"] = nn.Conv3d(last.in_channels, num_classes, 1)
    return model


class ConfidenceTrainer:
    """One training in one folder, as `pipeline.standin.loop.advance` moves it.

    Args:
        config: the recipe.
        clips: to learn from.
        vary: how each step's are varied.
        num_classes: of the dataset.
        backbone: whose clips they are.
        out: folder, of which `claimed` is held.
        start: a trained model to go on from; None starts from scratch.
    """

    def __init__(
        self,
        config: ConfidenceConfig,
        clips: Footage,
        vary: Vary,
        num_classes: int,
        backbone: Backbone,
        out: Path,
        start: MoViNet | None,
    ) -> None:
        self.config, self.clips, self.out, self._vary = config, clips, out, vary
        self._backbone = backbone
        torch.manual_seed(config.seed)
        model = (
            MoViNet(VARIANTS[config.variant], num_classes, config.hidden)
            if start is None
            else with_classes(start, num_classes, config.seed)
        )
        wanted = movinet_input(config.frames, config.pixels)
        self.confidence = ClassifierConfidence(model, wanted, backbone.preprocessing)
        self.confidence.to(backbone.device)
        self.model = model.requires_grad_(True)
        self.optimizer = torch.optim.AdamW(model.parameters(), weight_decay=config.weight_decay)
        self.step = 0
        if state := load_state(out, str(backbone.device)):
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.step = state["step"]
            forget_after(out, self.step)

    @property
    def num_steps(self) -> int:
        """Steps to do."""
        return self.config.steps

    def run(
        self, validation: Footage, schedule: Schedule, on_step: Callable[[int, float], None]
    ) -> float:
        """Trains to the last step; returns top-1 on the validation clips.

        Args:
            validation: clips never trained on.
            schedule: how often to save and to validate.
            on_step: called with (steps done, loss of the last one).
        """
        self._validation, self._num_validated = validation, schedule.validation_clips
        advance(self, schedule, on_step)
        return self.validate(validation, len(validation))

    def train_step(self) -> float:
        """One optimiser step; returns the loss."""
        config, device = self.config, self._backbone.device
        rows = batch_rows(config.seed, self.step, len(self.clips), config.batch_size)
        frames, labels = self._vary(
            torch.from_numpy(np.array(self.clips.frames[rows])),
            torch.from_numpy(self.clips.labels[rows]),
            seeded(config.seed, 3, self.step),
        )
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(config, self.step)
        self.model.train()
        torch.manual_seed(int(seeded(config.seed, 1, self.step).initial_seed()))  # of its dropout
        logits = self.model(self._seen(frames))
        loss = F.cross_entropy(logits, labels.to(device), label_smoothing=config.label_smoothing)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.step += 1
        return loss.item()

    @torch.no_grad()
    def validate(self, clips: Footage, limit: int) -> float:
        """Top-1 on the first `limit` clips."""
        self.model.eval()
        right, limit = 0, min(limit, len(clips))
        for first in range(0, limit, _VALIDATION_BATCH):
            rows = slice(first, min(first + _VALIDATION_BATCH, limit))
            logits = self.model(self._seen(torch.from_numpy(np.array(clips.frames[rows]))))
            right += int((logits.argmax(1).cpu().numpy() == clips.labels[rows]).sum())
        return right / limit

    def look(self, loss: float, seconds: float) -> bool:
        """See `pipeline.standin.loop.Training`; it always goes on."""
        top1 = round(self.validate(self._validation, self._num_validated), 4)
        entry = {"step": self.step, "loss": round(loss, 4), "top1": top1}
        add_to_log(self.out, {**entry, "seconds": round(seconds, 1)})
        export(self.model, self.config, self.out)
        return True

    def save(self) -> None:
        """Writes what a later run needs to go on from here."""
        state = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        save_state(self.out, {**state, "step": self.step})

    def _seen(self, frames: Tensor) -> Tensor:
        return self.confidence.prepare(self._backbone.pixel_values(frames))


def export(model: MoViNet, config: ConfidenceConfig, out: Path) -> None:
    """Writes the file that `movinet:VARIANT@FILE` names, with what its input must be."""
    arguments = argparse.Namespace(num_frames=config.frames, input_size=config.pixels)
    buffer = io.BytesIO()
    torch.save({"model": model.state_dict(), "args": arguments}, buffer)
    write_file(out / WEIGHTS, buffer.getvalue())
