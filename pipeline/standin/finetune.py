"""Trains a small backbone on any dataset's clips, from scratch or from a checkpoint."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.backbones import load_backbone
from pipeline.backbones.checkpoint import find_checkpoint
from pipeline.backbones.videomae import VideoMAEBackbone
from pipeline.errors import BackboneError, ConfigError
from pipeline.standin.checkpoint import load_state, save_state
from pipeline.standin.config import BackboneConfig
from pipeline.standin.families import attention_for
from pipeline.standin.footage import Footage
from pipeline.standin.inherit import start_from_videomae
from pipeline.standin.loop import BETAS, batch_rows, forget_after, seeded
from pipeline.standin.model import (
    MEAN,
    STD,
    as_backbone,
    build_model,
    embed_kept,
    normalise,
    pick,
    start_from_principal_components,
    to_patches,
)
from pipeline.standin.pretrained import is_pretrained, load_pretrained
from pipeline.standin.train import Trainer, descend, draw_tokens, learning_rate, precision_of

logger = logging.getLogger(__name__)

WIDER = 1.25
"""Side of the decoded training clips by that of the crops."""


@dataclass(frozen=True, kw_only=True)
class FootageConfig(BackboneConfig):
    """A training on a dataset's own videos: which ones, and how their clips are varied."""

    dataset: str
    data_digest: str
    """Of the videos, and of their labels where these are used."""
    sampling: str = "stride:4"
    flip: bool = False
    """Mirror half of the clips."""
    smallest_crop: float = 0.4
    """Smallest share of the frame that a random crop takes; 1 crops none."""
    colour: float = 0.3
    """Largest change of brightness and contrast; 0 changes none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.smallest_crop <= 1:
            raise ConfigError(f"smallest_crop must be above 0 up to 1, got {self.smallest_crop!r}")
        if not 0 <= self.colour <= 1:
            raise ConfigError(f"colour must be from 0 to 1, got {self.colour!r}")


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig(FootageConfig):
    """Recipe of a training on a dataset's own videos and their labels."""

    label_smoothing: float = 0.1
    """Share of a label that is dealt out among all classes; 0 smooths none."""
    mixup: float = 0.0
    """Alpha of the Beta distribution that clips of a batch are mixed by, with their labels; 0 mixes
    none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.mixup < math.inf:
            raise ConfigError(f"mixup must be at least 0, got {self.mixup!r}")
        if not 0 <= self.label_smoothing < 1:
            raise ConfigError(
                f"label_smoothing must be at least 0 and below 1, got {self.label_smoothing!r}"
            )


def open_checkpoint(init: str) -> VideoMAEBackbone:
    """The VideoMAE checkpoint to start from, for a training of any family.

    It may be one that was pre-trained without labels, and has no head.

    Raises:
        BackboneError: it does not load, is no VideoMAE, or normalises frames in another way.
    """
    folder = find_checkpoint(init)
    backbone = load_pretrained(folder) if is_pretrained(folder) else load_backbone(init)
    if not isinstance(backbone, VideoMAEBackbone):
        raise BackboneError(f"--init {init}: only VideoMAE checkpoints can be trained here")
    shown = (*backbone.preprocessing.mean, *backbone.preprocessing.std)
    if not np.allclose(shown, [255 * value for value in (*MEAN, *STD)], atol=0.01):
        raise BackboneError(f"--init {init}: frames are normalised in another way than here")
    return backbone


def shape_of(backbone: VideoMAEBackbone, family: str) -> dict[str, Any]:
    """The fields of `BackboneConfig` that a checkpoint decides, of a model of that family."""
    found = backbone.model.config
    same = ("num_frames", "tubelet_size", "image_size", "patch_size", "hidden_size")
    shape = {
        **{name: int(getattr(found, name)) for name in same},
        "num_layers": int(found.num_hidden_layers),
        "num_heads": int(found.num_attention_heads),
    }
    if family == "timesformer":
        shape |= {"num_frames": backbone.grid.t, "tubelet_size": 1}
    return shape


class Finetuner(Trainer):
    """One training in one folder; steps, validation and files as `Trainer`'s."""

    config: FinetuneConfig

    def __init__(
        self,
        config: FinetuneConfig,
        clips: Footage,
        label_names: list[str],
        out: Path,
        device: str,
        start: VideoMAEBackbone | None,
    ) -> None:
        self.config, self.footage, self.out, self.device = config, clips, out, device
        torch.manual_seed(config.seed)
        if start is None:
            self.model: Any = from_scratch(config, clips, label_names)
        elif config.family == "timesformer":
            self.model = build_model(config, label_names)
            start_from_videomae(self.model, start)
        else:
            self.model = start.model
            self.model.set_attn_implementation(attention_for(config.precision))
            _fit_head(self.model, start.label_names, label_names)
        self.backbone = as_backbone(self.model, config).to(device)
        self.model.requires_grad_(True)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), betas=BETAS, weight_decay=config.weight_decay
        )
        self.step = 0
        if state := load_state(out, device):
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.step = state["step"]
            forget_after(out, self.step)

    def train_step(self) -> float:
        """One optimiser step; returns the loss."""
        config = self.config
        rows, frames = varied_batch(config, self.footage, self.step, self.device)
        labels = torch.from_numpy(self.footage.labels[rows]).to(self.device)
        share, other = mixing(config, self.step, len(frames))
        frames = mix(frames, share, other)
        index = draw_tokens(config, len(frames), seeded(config.seed, 1, self.step)).to(self.device)
        patches = normalise(pick(to_patches(frames, config), index))
        self.model.train()
        with precision_of(config, self.device):
            logits = self.backbone.run(embed_kept(self.backbone, patches, index))
            loss = mixed_loss(logits, labels, share, other, config.label_smoothing)
        descend(self.optimizer, loss, learning_rate(config, self.step))
        self.step += 1
        return loss.item()

    def save(self) -> None:
        """Writes what a later run needs to go on from here."""
        state = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        save_state(self.out, {**state, "step": self.step})


def from_scratch(config: FootageConfig, footage: Footage, label_names: list[str]) -> Any:
    """A fresh model whose tubelet filters are the principal components of some clips."""
    model = build_model(config, label_names)
    _, sample = varied_batch(replace(config, batch_size=64), footage, 0, "cpu")
    patches = normalise(to_patches(sample, config)).flatten(0, 1)
    start_from_principal_components(model, patches)
    return model


def varied_batch(
    config: FootageConfig, footage: Footage, step: int, device: str
) -> tuple[np.ndarray, Tensor]:
    """The clips of a step as they are trained on.

    Returns:
        Their rows, int64 (B,), and uint8 (B, T, image_size, image_size, 3).
    """
    rows = batch_rows(config.seed, step, len(footage), config.batch_size)
    frames = torch.from_numpy(np.array(footage.frames[rows])).to(device)
    return rows, vary(frames, config, seeded(config.seed, 3, step))


def mixing(config: FinetuneConfig, step: int, count: int) -> tuple[float, Tensor]:
    """How a step mixes its clips (mixup, Zhang et al., 2018): one share for the whole batch.

    Returns:
        The share of each clip in its mixture, and int64 (count,), whose the rest is.
    """
    rng = np.random.default_rng((config.seed, 4, step))
    share = float(rng.beta(config.mixup, config.mixup)) if config.mixup else 1.0
    return share, torch.from_numpy(rng.permutation(count))


def mix(frames: Tensor, share: float, other: Tensor) -> Tensor:
    """uint8 (B, ...) clips, `share` of each and the rest of the clip `other` names."""
    if share == 1:
        return frames
    mixed = share * frames.float() + (1 - share) * frames[other.to(frames.device)].float()
    return mixed.round().to(torch.uint8)


def mixed_loss(
    logits: Tensor, labels: Tensor, share: float, other: Tensor, smoothing: float
) -> Tensor:
    """Cross-entropy against both labels of each mixture, by their shares."""
    loss = share * F.cross_entropy(logits, labels, label_smoothing=smoothing)
    if share < 1:
        swapped = labels[other.to(labels.device)]
        loss = loss + (1 - share) * F.cross_entropy(logits, swapped, label_smoothing=smoothing)
    return loss


class Variation(Protocol):
    """How much training clips are varied; see `FinetuneConfig`."""

    @property
    def image_size(self) -> int:
        """Side of what comes out, in pixels."""

    @property
    def smallest_crop(self) -> float:
        """Share of the frame."""

    @property
    def flip(self) -> bool:
        """Mirror half of the clips."""

    @property
    def colour(self) -> float:
        """Change of brightness and contrast."""


def vary(frames: Tensor, config: Variation, generator: torch.Generator) -> Tensor:
    """Random resized crops, mirror images where allowed, and colour; one draw a clip.

    Args:
        frames: uint8 (B, T, S, S, 3).
        config: the recipe.
        generator: decides, on the CPU.

    Returns:
        uint8 (B, T, image_size, image_size, 3).
    """
    batch, length = frames.shape[:2]
    area, x, y, mirror, light, contrast = torch.rand(6, batch, generator=generator)
    scale = (config.smallest_crop + area * (1 - config.smallest_crop)).sqrt()
    sign = torch.where(mirror < 0.5, -1.0, 1.0) if config.flip else torch.ones(batch)
    theta = torch.zeros(batch, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1] = scale * sign, scale
    theta[:, 0, 2], theta[:, 1, 2] = (2 * x - 1) * (1 - scale), (2 * y - 1) * (1 - scale)
    side = config.image_size
    grid = F.affine_grid(theta, [batch, 1, side, side], align_corners=False).to(frames.device)
    flat = frames.permute(0, 1, 4, 2, 3).flatten(1, 2).float()
    cut = F.grid_sample(flat, grid, padding_mode="border", align_corners=False)

    def factor(chance: Tensor) -> Tensor:
        return (1 + config.colour * (2 * chance - 1)).view(-1, 1, 1, 1).to(frames.device)

    mean = cut.mean((1, 2, 3), keepdim=True)
    cut = ((cut - mean) * factor(contrast) + mean) * factor(light)
    shaped = cut.view(batch, length, 3, side, side).permute(0, 1, 3, 4, 2)
    return shaped.round().clamp(0, 255).to(torch.uint8)


def _fit_head(model: Any, old: list[str] | None, names: list[str]) -> None:
    """A fresh head where the classes differ."""
    if old == names:
        logger.info("the checkpoint's head is kept: its %d classes are the dataset's", len(names))
        return
    logger.warning(
        "new head: the checkpoint's %d classes are not the dataset's %d",
        model.config.num_labels, len(names),
    )  # fmt: skip
    fresh_head(model, names)


def fresh_head(model: Any, names: list[str]) -> None:
    """Gives a classifier of transformers a head for other classes, in place."""
    head = nn.Linear(model.classifier.in_features, len(names))
    nn.init.normal_(head.weight, std=0.02)
    nn.init.zeros_(head.bias)
    model.classifier = head.to(model.classifier.weight)
    model.config.id2label = dict(enumerate(names))
    model.config.label2id = {name: i for i, name in enumerate(names)}
    model.num_labels = len(names)
