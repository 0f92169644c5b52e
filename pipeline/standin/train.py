"""Trains the small backbone; random tokens are dropped at every step, as selection will."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from datasets_spec.synthetic.actors import NO_ACTION
from pipeline.backbones.videomae import VideoMAEBackbone
from pipeline.standin.augment import augment
from pipeline.standin.checkpoint import export, load_state, save_state
from pipeline.standin.clips import Clips
from pipeline.standin.config import BackboneConfig
from pipeline.standin.inherit import start_from_videomae
from pipeline.standin.loop import (
    BETAS,
    Recipe,
    Schedule,
    add_to_log,
    advance,
    batch_rows,
    cosine,
    forget_after,
    seeded,
)
from pipeline.standin.model import (
    as_backbone,
    build_model,
    embed_kept,
    normalise,
    pick,
    start_from_principal_components,
    to_patches,
)

VALIDATION_KEEP = (1.0, 0.5, 0.3, 0.1)
_BACKGROUND_WEIGHT = 0.2
"""Most tokens show no actor; they must not drown the others in the auxiliary loss."""
_VALIDATION_BATCH = 128


class Trainer:
    """One training in one folder."""

    def __init__(
        self,
        config: BackboneConfig,
        clips: Clips,
        label_names: list[str],
        out: Path,
        device: str = "cpu",
        start: VideoMAEBackbone | None = None,
    ) -> None:
        self.config, self.clips, self.out, self.device = config, clips, out, device
        torch.manual_seed(config.seed)
        self.model: Any = build_model(config, label_names)
        self.actor_head = nn.Linear(config.hidden_size, len(label_names) + 1)
        if start is None:
            start_from_principal_components(self.model, self._sample_patches())
        else:
            start_from_videomae(self.model, start)
        self.backbone = as_backbone(self.model, config).to(device)
        self.actor_head.to(device)
        self.optimizer = torch.optim.AdamW(
            [*self.model.parameters(), *self.actor_head.parameters()],
            betas=BETAS,
            weight_decay=config.weight_decay,
        )
        self.step = 0
        if state := load_state(out, device):
            self.model.load_state_dict(state["model"])
            self.actor_head.load_state_dict(state["actor_head"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.step = state["step"]
            forget_after(out, self.step)

    def run(
        self, validation: Clips, schedule: Schedule, on_step: Callable[[int, float], None]
    ) -> float:
        """Trains to the last step; returns top-1 on the validation clips with all tokens.

        Args:
            validation: clips never trained on.
            schedule: how often to save and to validate.
            on_step: called with (steps done, mean loss since the last call).
        """
        self._validation, self._num_validated = validation, schedule.validation_clips
        advance(self, schedule, on_step)
        return self.validate(validation, len(validation), keep=(1.0,))[1.0]

    @property
    def num_steps(self) -> int:
        """Steps to do."""
        return self.config.steps

    def look(self, loss: float, seconds: float) -> bool:
        """See `pipeline.standin.loop.Training`; it always goes on."""
        top1 = self.validate(self._validation, self._num_validated)
        add_to_log(
            self.out,
            {
                "step": self.step,
                "loss": round(loss, 4),
                "learning_rate": learning_rate(self.config, self.step - 1),
                "top1": {str(ratio): round(value, 4) for ratio, value in top1.items()},
                "seconds": round(seconds, 1),
            },
        )
        export(self.model, self.out, self.config)
        return True

    def train_step(self) -> float:
        """One optimiser step; returns the classification loss."""
        config = self.config
        generator = seeded(config.seed, 1, self.step)
        frames, labels, actions = augment(*self._batch(), generator)
        index = draw_tokens(config, len(frames), generator).to(self.device)
        patches = normalise(pick(to_patches(frames, config), index))
        shown = pick(actions.flatten(1), index)
        self.model.train()
        with precision_of(config, self.device):
            hidden = self.backbone.encode(embed_kept(self.backbone, patches, index))
            loss = F.cross_entropy(self.backbone.head(hidden), labels)
            weight = config.actor_weight * max(0.0, 1.0 - self.step / config.actor_steps)
            total = loss + weight * self._actor_loss(hidden.on_grid, shown) if weight else loss
        descend(self.optimizer, total, learning_rate(config, self.step))
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
                generator = seeded(self.config.seed, 2, first)
                index = _random_tokens(self.config, len(frames), kept, generator)
                index = index.to(self.device)
                patches = normalise(pick(to_patches(frames, self.config), index))
                with precision_of(self.config, self.device):
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
        config = self.config
        rows = batch_rows(config.seed, self.step, len(self.clips), config.batch_size)
        frames = torch.from_numpy(self.clips.frames[rows]).to(self.device)
        labels = torch.from_numpy(self.clips.labels[rows]).to(self.device)
        actions = torch.from_numpy(self.clips.actions[rows].astype(np.int64)).to(self.device)
        return frames, labels, actions

    def _sample_patches(self) -> Tensor:
        count = min(256, len(self.clips))
        rows = np.sort(np.random.default_rng(self.config.seed).permutation(len(self.clips))[:count])
        frames = torch.from_numpy(self.clips.frames[rows])
        return normalise(to_patches(frames, self.config)).flatten(0, 1)


def precision_of(config: BackboneConfig, device: str) -> torch.autocast:
    """The context in which a training's passes run."""
    kind = torch.device(device).type
    return torch.autocast(kind, torch.bfloat16, enabled=config.precision == "bf16")


def descend(optimizer: torch.optim.Optimizer, loss: Tensor, rate: float) -> None:
    """One step against the loss; gradients are clipped to a norm of 1 over all parameters."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], 1.0)
    optimizer.step()


def learning_rate(config: Recipe, step: int) -> float:
    """Warm-up, then constant, then down to zero with a half cosine over the last part.

    The constant part makes the number of steps a decision that can still be changed on the way.
    """
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    decay = max(1, round(config.steps * config.decay_share))
    done = max(0.0, (step - (config.steps - decay)) / decay)
    return config.learning_rate * cosine(done)


def draw_tokens(config: BackboneConfig, count: int, generator: torch.Generator) -> Tensor:
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
