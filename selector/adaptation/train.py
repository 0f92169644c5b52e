"""The adaptation's training: a method's own masks, at keep ratios drawn anew at every step.

Blocks and head learn, or adapters on their linear layers. The patch embedding stays, so a selector
sees the same tokens as before and still belongs to the model.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.backbones.base import Backbone
from pipeline.errors import ConfigError
from pipeline.standin.loop import BETAS, batch_rows, cosine, seeded
from selector.adaptation.clips import Clips
from selector.adaptation.config import AdaptConfig
from selector.adaptation.files import AdaptResult, Judged
from selector.adaptation.lora import LoraAdapters
from selector.deploy.model import LiteModel
from selector.methods.base import ClipBatch, Method
from selector.methods.cost import CostModel
from selector.methods.names import LITE
from selector.methods.registry import Parts, make_method, parse_method
from selector.training.files import TrainingFiles

WIDTH_OF_1E3 = 96
"""Channels of a token at which the default learning rate is 1e-3, as it was measured."""
MOST_LOOKS = 8
_LOOKING_SHARE = 0.3
"""Of a bound in minutes, what may go into looking at held-out videos."""
_OVERRUN = 1.25
"""Times the bound in minutes at which a training that turns out slower is stopped."""
_WARMUP_SHARE = 0.05
_BATCHES, _MASKS = 1, 2


@dataclass(frozen=True)
class Pace:
    """How long things take here.

    Attributes:
        step: seconds of a step, on average over the keep ratios.
        look: seconds of a look at the held-out videos.
    """

    step: float
    look: float

    def plan(self, minutes: float) -> tuple[int, int]:
        """How many steps and looks fit into a time.

        Raises:
            ConfigError: not one of each, after the look before the first step.
        """
        seconds = 60 * minutes
        looks = min(MOST_LOOKS, max(1, int(_LOOKING_SHARE * seconds / self.look) - 1))
        steps = int((seconds - (looks + 1) * self.look) / self.step)
        if steps < 1:
            least = (2 * self.look + self.step) / 60
            raise ConfigError(
                f"{minutes:g} minutes are too short here for one step and one validation after it: "
                f"a step takes {self.step:.2g} s and a validation {self.look:.2g} s, so give more "
                f"than {least:.2g} minutes (--minutes), or fewer videos to judge by (--held-out)"
            )
        return steps, looks


class Adaptation:
    """One training of one model.

    Args:
        config: closed.
        model: its backbone is changed in place.
        clips: to train on.
        judge: held-out ones.
        files: where its state is kept; what is there is resumed.
    """

    def __init__(
        self,
        config: AdaptConfig,
        model: LiteModel,
        clips: Clips,
        judge: Clips,
        files: TrainingFiles,
    ) -> None:
        self.config, self.clips, self.judge, self._files = config, clips, judge, files
        self._selectors = {} if model.selector is None else {LITE: model.selector}
        self.backbone = model.backbone
        self._method = self._make_method(config.seed)
        for ratio in config.judged_ratios:  # a method that cannot get there says so now
            self._method.setting(ratio, self._costs)
        self._full = self._answers(judge)
        self._teacher = self._answers(clips) if config.distill else None
        names = trained_parameters(self.backbone)
        self._adapters = None
        if config.lora_rank is not None:
            self._adapters = LoraAdapters(self.backbone, names, config.lora_rank, config.seed)
            self._parameters = self._adapters.parameters
        else:
            self._parameters = {
                name: parameter.requires_grad_()
                for name, parameter in self.backbone.named_parameters()
                if name in names
            }
        self._optimizer = torch.optim.AdamW(
            self._parameters.values(), betas=BETAS, weight_decay=config.weight_decay
        )
        self.step, self.num_steps, self.num_looks = 0, 0, MOST_LOOKS
        self._seconds = self._total_seconds = 0.0  # of earlier runs; with this one's
        self.history: list[dict[str, Any]] = []
        self._best: dict[str, Tensor] = self._weights()
        self.stopped = "steps"
        if state := files.read_checkpoint():
            self._load(state)
        else:
            self._begin()

    def _begin(self) -> None:
        """How many steps, and where it stands before the first; saved, so that both are final."""
        began = time.monotonic()
        self._look(None)
        look = time.monotonic() - began
        if self.config.steps is None:
            self.num_steps, self.num_looks = Pace(self._seconds_of_a_step(), look).plan(
                self.config.minutes
            )
        else:
            self.num_steps = self.config.steps
        self._seconds = self._total_seconds = time.monotonic() - began
        self.save()

    @property
    def look_every(self) -> int:
        """Steps between looks."""
        return max(1, math.ceil(self.num_steps / self.num_looks))

    def train_step(self) -> float:
        """One optimiser step; returns its loss."""
        config = self.config
        at = batch_rows(config.seed, self.step, len(self.clips), config.batch_size)
        all_of_them, share = torch.rand(
            2, generator=seeded(config.seed, _BATCHES, self.step)
        ).tolist()
        ratio = config.keep_low + share * (config.keep_high - config.keep_low)
        if all_of_them < config.full_share:
            ratio = 1.0
        for group in self._optimizer.param_groups:
            group["lr"] = self.learning_rate(self.step)
        loss = self._loss(at, ratio)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if self._adapters is not None and self.step == 0:
            self._adapters.check_gradients()
        nn.utils.clip_grad_norm_(self._parameters.values(), 1.0)
        self._optimizer.step()
        self.step += 1
        return loss.item()

    def look(self, loss: float, seconds: float) -> bool:
        """See `pipeline.standin.loop.Training`; keeps the best weights so far."""
        self._total_seconds = self._seconds + seconds
        self._look(loss)
        if self._best_look() == len(self.history) - 1:
            self._best = self._weights()
        if self.step < self.num_steps:
            limit = 60 * self.config.minutes * _OVERRUN
            if len(self.history) - 1 - self._best_look() >= self.config.patience:
                self.stopped = "patience"
            elif self.config.steps is None and self._total_seconds > limit:
                self.stopped = "time"
        return self.stopped == "steps"

    def save(self) -> None:
        """See `pipeline.standin.loop.Training`."""
        self._files.write_checkpoint(
            {
                "weights": self._weights(),
                "best": self._best,
                "optimizer": self._optimizer.state_dict(),
                "step": self.step,
                "num_steps": self.num_steps,
                "num_looks": self.num_looks,
                "history": self.history,
                "stopped": self.stopped,
                "seconds": self._total_seconds,
            }
        )

    def finish(self) -> AdaptResult:
        """Puts the best weights in place, frozen; says what came out."""
        self._put(self._best)
        for parameter in self._parameters.values():
            parameter.requires_grad_(False)
        first, best = self.history[0], self.history[self._best_look()]
        if self._adapters is not None:
            self._adapters.unload(add=best["step"] > 0)
        before, after = (
            {float(ratio): Judged(**values) for ratio, values in entry["judged"].items()}
            for entry in (first, best)
        )
        return AdaptResult(
            before=before,
            after=after,
            best_step=best["step"],
            num_steps=self.step,
            stopped=self.stopped,
            seconds=self._total_seconds,
            num_train=len(self.clips),
            num_held_out=len(self.judge),
            history=self.history,
        )

    def learning_rate(self, step: int) -> float:
        """Warm-up, then a half cosine to zero."""
        peak = self.config.learning_rate
        if peak is None:
            peak = 1e-3 * min(1.0, WIDTH_OF_1E3 / self.backbone.hidden_size)
        warmup = max(1, round(_WARMUP_SHARE * self.num_steps))
        return peak * min(1.0, (step + 1) / warmup) * cosine(step / self.num_steps)

    @torch.no_grad()
    def judged(self, ratio: float) -> Judged:
        """Loss, accuracy and agreement with the full model on the held-out clips."""
        size, first = self.config.batch_size, 0
        loss, right, agreed = 0.0, 0, 0
        for batch in self.judge.batches(self.backbone, size):
            full = self._full[first : first + len(batch)].to(self.backbone.device)
            logits = self._logits(batch, ratio, self._method)
            loss += float(self._loss_of(logits, batch.labels, full)) * len(batch)
            right += int((logits.argmax(1) == batch.labels).sum())
            agreed += int((logits.argmax(1) == full.argmax(1)).sum())
            first += len(batch)
        known = bool((torch.from_numpy(self.judge.labels) >= 0).all())
        return Judged(loss / first, right / first if known else None, agreed / first)

    def _look(self, loss: float | None) -> None:
        """Judges by the held-out loss, weighted as the training weighs the ratios."""
        found = {ratio: self.judged(ratio) for ratio in self.config.judged_ratios}
        reduced = [value.loss for ratio, value in found.items() if ratio < 1]
        held_out = found[1.0].loss
        if reduced:
            share = self.config.full_share
            held_out = share * held_out + (1 - share) * sum(reduced) / len(reduced)
        self.history.append(
            {
                "step": self.step,
                "loss": loss,
                "held_out": held_out,
                "judged": {str(ratio): vars(value) for ratio, value in found.items()},
                "seconds": round(self._total_seconds, 1),
            }
        )

    def _best_look(self) -> int:
        losses = [entry["held_out"] for entry in self.history]
        return losses.index(min(losses))

    def _loss(self, at: npt.NDArray[np.int64], ratio: float) -> Tensor:
        name = parse_method(self.config.method)
        method = self._method
        if name.is_random:  # another draw for every step, not one for every clip
            number = seeded(self.config.seed, _MASKS, self.step).initial_seed()
            method = self._make_method(number)
        batch = self.clips.batch(self.backbone, at)
        logits = self._logits(batch, ratio, method)
        full = None if self._teacher is None else self._teacher[at].to(logits.device)
        return self._loss_of(logits, batch.labels, full)

    def _loss_of(self, logits: Tensor, labels: Tensor, full: Tensor | None) -> Tensor:
        if self.config.distill:
            assert full is not None
            return F.kl_div(
                logits.log_softmax(1), full.log_softmax(1), reduction="batchmean", log_target=True
            )
        return F.cross_entropy(logits, labels)

    def _logits(self, batch: ClipBatch, ratio: float, method: Method) -> Tensor:
        reducer = None
        if ratio < 1:
            with torch.no_grad():
                prepared = method.prepare(batch)
            reducer = method.reducer(prepared, method.setting(ratio, self._costs))
        half = self.config.precision == "bf16"
        with torch.autocast(self.backbone.device.type, torch.bfloat16, enabled=half):
            return self.backbone.run(batch.tokens, reducer)

    def _make_method(self, seed: int) -> Method:
        sampling = self.config.sampling
        parts = Parts(self.backbone, seed, self._selectors, sampling=sampling)
        return make_method(parse_method(self.config.method), parts)

    @cached_property
    def _costs(self) -> CostModel:
        return CostModel(self.backbone)

    def _seconds_of_a_step(self) -> float:
        """Gradients are computed and thrown away: no weight changes."""
        config = self.config
        at = batch_rows(config.seed, 0, len(self.clips), config.batch_size)

        def seconds(ratio: float) -> float:
            began = time.monotonic()
            loss = self._loss(at, ratio)
            loss.backward()
            self._optimizer.zero_grad(set_to_none=True)
            loss.item()
            return time.monotonic() - began

        seconds(config.keep_low)  # the first of a process is slower
        drawn = (seconds(config.keep_low) + seconds(config.keep_high)) / 2
        return config.full_share * seconds(1.0) + (1 - config.full_share) * drawn

    def _weights(self) -> dict[str, Tensor]:
        return {name: p.detach().cpu().clone() for name, p in self._parameters.items()}

    @torch.no_grad()
    def _put(self, weights: Mapping[str, Tensor]) -> None:
        for name, parameter in self._parameters.items():
            parameter.copy_(weights[name])

    def _load(self, state: dict[str, Any]) -> None:
        self._put(state["weights"])
        self._best = state["best"]
        self._optimizer.load_state_dict(state["optimizer"])
        self.step, self.history = state["step"], state["history"]
        self.num_steps, self.num_looks = state["num_steps"], state["num_looks"]
        self.stopped = state["stopped"]
        self._seconds = self._total_seconds = state["seconds"]

    @torch.no_grad()
    def _answers(self, clips: Clips) -> Tensor:
        """Logits of the full model, float32 (n, C) on the CPU; it is not adapted yet."""
        batches = clips.batches(self.backbone, self.config.batch_size)
        return torch.cat([self.backbone.run(batch.tokens).cpu() for batch in batches])


def trained_parameters(backbone: Backbone) -> set[str]:
    """Names of the parameters that have no part in embedding: those of blocks and head."""
    named = dict(backbone.named_parameters())
    side = backbone.image_size
    pixels = torch.zeros(1, backbone.num_frames, 3, side, side, device=backbone.device)
    try:
        for parameter in named.values():
            parameter.requires_grad_()
        embedded = backbone.embed(pixels.to(backbone.dtype)).values.sum()
        parts = torch.autograd.grad(embedded, list(named.values()), allow_unused=True)
    finally:
        for parameter in named.values():
            parameter.requires_grad_(False)
    return {name for name, part in zip(named, parts, strict=True) if part is None}
