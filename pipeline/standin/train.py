"""The training loop: random tokens dropped at every step, so that selection later does no harm.

Step `s` depends on the settings and `s` alone (its generator is seeded by both), so a resumed
training equals one that was never interrupted.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from datasets_spec.synthetic.actors import NO_ACTION
from pipeline.standin.augment import augment
from pipeline.standin.checkpoint import export, load_state, save_state
from pipeline.standin.clips import Clips
from pipeline.standin.config import BackboneConfig
from pipeline.standin.model import (
    as_backbone,
    build_model,
    embed_kept,
    normalise,
    pick,
    start_from_principal_components,
    to_patches,
)
from pipeline.store.root import write_file

LOG = "log.jsonl"
VALIDATION_KEEP = (1.0, 0.5, 0.3, 0.1)
_BACKGROUND_WEIGHT = 0.2
"""Most tokens show no actor; they must not drown the others in the auxiliary loss."""
_BETAS = (0.9, 0.98)
_VALIDATION_BATCH = 128


@dataclass(frozen=True)
class Schedule:
    """How often a training pauses to look at itself; changes no weight."""

    validate_every: int = 500
    save_every: int = 100
    validation_clips: int = 1000


class Trainer:
    """One training in one folder."""

    def __init__(
        self,
        config: BackboneConfig,
        clips: Clips,
        label_names: list[str],
        out: Path,
        device: str = "cpu",
    ) -> None:
        self.config, self.clips, self.out, self.device = config, clips, out, device
        torch.manual_seed(config.seed)
        self.model: Any = build_model(config, label_names)
        self.actor_head = nn.Linear(config.hidden_size, len(label_names) + 1)
        start_from_principal_components(self.model, self._sample_patches())
        self.backbone = as_backbone(self.model, config).to(device)
        self.actor_head.to(device)
        self.parameters = [*self.model.parameters(), *self.actor_head.parameters()]
        self.optimizer = torch.optim.AdamW(
            self.parameters, betas=_BETAS, weight_decay=config.weight_decay
        )
        self.step = 0
        if state := load_state(out, device):
            self.model.load_state_dict(state["model"])
            self.actor_head.load_state_dict(state["actor_head"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.step = state["step"]
            _forget_after(out, self.step)

    def run(
        self, validation: Clips, schedule: Schedule, on_step: Callable[[int, float], None]
    ) -> float:
        """Trains to the last step; returns top-1 on the validation clips with all tokens.

        Args:
            validation: clips never trained on.
            schedule: how often to save and to validate.
            on_step: called with (steps done, mean loss since the last call).
        """
        losses: list[float] = []
        began = time.monotonic()
        while self.step < self.config.steps:
            losses.append(self.train_step())
            last = self.step == self.config.steps
            on_step(self.step, losses[-1])
            if last or self.step % schedule.validate_every == 0:
                found = self.validate(validation, schedule.validation_clips)
                self._log(losses, found, time.monotonic() - began)
                losses.clear()
                export(self.model, self.out, self.config)
            if last or self.step % schedule.save_every == 0:
                self.save()
        return self.validate(validation, len(validation), keep=(1.0,))[1.0]

    def train_step(self) -> float:
        """One optimiser step; returns the classification loss."""
        config = self.config
        generator = _generator(config.seed, 1, self.step)
        frames, labels, actions = augment(*self._batch(), generator)
        index = _draw_tokens(config, len(frames), generator).to(self.device)
        patches = normalise(pick(to_patches(frames, config), index))
        shown = pick(actions.flatten(1), index)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(config, self.step)
        self.model.train()
        with self._precision():
            hidden = self.backbone.encode(embed_kept(self.backbone, patches, index))
            loss = F.cross_entropy(self.backbone.head(hidden), labels)
            weight = config.actor_weight * max(0.0, 1.0 - self.step / config.actor_steps)
            total = loss + weight * self._actor_loss(hidden.values, shown) if weight else loss
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.step += 1
        return loss.item()

    @torch.no_grad()
    def validate(
        self, clips: Clips, limit: int, keep: tuple[float, ...] = VALIDATION_KEEP
    ) -> dict[float, float]:
        """Top-1 on the first `limit` clips with random tokens kept, per keep ratio."""
        self.model.eval()
        found = {}
        for ratio in keep:
            right = 0
            kept = max(1, int(self.config.grid.num_tokens * ratio))
            for first in range(0, min(limit, len(clips)), _VALIDATION_BATCH):
                rows = slice(first, min(first + _VALIDATION_BATCH, limit, len(clips)))
                frames = torch.from_numpy(np.array(clips.frames[rows])).to(self.device)
                generator = _generator(self.config.seed, 2, first)
                index = _random_tokens(self.config, len(frames), kept, generator)
                index = index.to(self.device)
                patches = normalise(pick(to_patches(frames, self.config), index))
                with self._precision():
                    logits = self.backbone.run(embed_kept(self.backbone, patches, index))
                right += int((logits.argmax(1).cpu().numpy() == clips.labels[rows]).sum())
            found[ratio] = right / min(limit, len(clips))
        return found

    def save(self) -> None:
        """Writes what a later run needs to go on from here."""
        save_state(
            self.out,
            {
                "model": self.model.state_dict(),
                "actor_head": self.actor_head.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "step": self.step,
            },
        )

    def _actor_loss(self, hidden: Tensor, shown: Tensor) -> Tensor:
        """Which action does each token show? The last class is none."""
        logits = self.actor_head(hidden).float().flatten(0, 1)
        none = logits.shape[1] - 1
        weight = torch.ones(none + 1, device=logits.device)
        weight[none] = _BACKGROUND_WEIGHT
        target = torch.where(shown == NO_ACTION, none, shown)
        return F.cross_entropy(logits, target.flatten(), weight=weight)

    def _batch(self) -> tuple[Tensor, Tensor, Tensor]:
        size, count = min(self.config.batch_size, len(self.clips)), len(self.clips)
        epoch, place = divmod(self.step, count // size)
        order = torch.randperm(count, generator=_generator(self.config.seed, 0, epoch))
        rows = np.sort(order[place * size : (place + 1) * size].numpy())
        frames = torch.from_numpy(self.clips.frames[rows]).to(self.device)
        labels = torch.from_numpy(self.clips.labels[rows]).to(self.device)
        actions = torch.from_numpy(self.clips.actions[rows].astype(np.int64)).to(self.device)
        return frames, labels, actions

    def _sample_patches(self) -> Tensor:
        count = min(256, len(self.clips))
        rows = np.sort(np.random.default_rng(self.config.seed).permutation(len(self.clips))[:count])
        frames = torch.from_numpy(self.clips.frames[rows])
        return normalise(to_patches(frames, self.config)).flatten(0, 1)

    def _precision(self) -> torch.autocast:
        device = torch.device(self.device).type
        return torch.autocast(device, torch.bfloat16, enabled=self.config.precision == "bf16")

    def _log(self, losses: list[float], top1: dict[float, float], seconds: float) -> None:
        entry = {
            "step": self.step,
            "loss": round(float(np.mean(losses)), 4),
            "learning_rate": learning_rate(self.config, self.step - 1),
            "top1": {str(ratio): round(value, 4) for ratio, value in top1.items()},
            "seconds": round(seconds, 1),
        }
        with (self.out / LOG).open("a") as file:
            file.write(json.dumps(entry) + "\n")


def read_log(out: Path) -> Iterator[dict[str, Any]]:
    """The validation curve of a training, oldest first."""
    with (out / LOG).open() as file:
        for line in file:
            yield json.loads(line)


def _forget_after(out: Path, step: int) -> None:
    """Drops the log's lines of steps that will be done again."""
    path = out / LOG
    if path.is_file():
        kept = [json.dumps(entry) + "\n" for entry in read_log(out) if entry["step"] <= step]
        write_file(path, "".join(kept).encode())


def learning_rate(config: BackboneConfig, step: int) -> float:
    """Warm-up, then constant, then down to zero with a half cosine over the last part.

    The constant part makes the number of steps a decision that can still be changed on the way.
    """
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    decay = max(1, round(config.steps * config.decay_share))
    done = max(0.0, (step - (config.steps - decay)) / decay)
    return config.learning_rate * 0.5 * (1.0 + float(np.cos(np.pi * done)))


def _draw_tokens(config: BackboneConfig, count: int, generator: torch.Generator) -> Tensor:
    """Which tokens this step keeps: int64 (B, K), K the same for the whole batch."""
    all_of_them, share = torch.rand(2, generator=generator).tolist()
    ratio = config.keep_low + share * (config.keep_high - config.keep_low)
    kept = config.grid.num_tokens * (1.0 if all_of_them < config.full_share else ratio)
    return _random_tokens(config, count, max(1, int(kept)), generator)


def _random_tokens(
    config: BackboneConfig, count: int, kept: int, generator: torch.Generator
) -> Tensor:
    noise = torch.rand(count, config.grid.num_tokens, generator=generator)
    return noise.argsort(1)[:, :kept]


def _generator(seed: int, stream: int, number: int) -> torch.Generator:
    """An independent generator for each (stream, number): batches, augmentation, validation."""
    state = np.random.SeedSequence([seed, stream, number]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> 1))
