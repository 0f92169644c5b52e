"""Masked pre-training of a small VideoMAE on clips without labels (Tong et al., 2022).

Nine tenths of the token grid's places are hidden, the same ones in all frames (tubes, since what
moves little could else be copied from the next frame). The encoder sees the other tokens, and a
decoder that is thrown away afterwards draws the hidden patches, each normalised by its own mean and
deviation. Model and loss are transformers' `VideoMAEForPreTraining`.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from datasets_spec.types import Video
from pipeline.backbones.videomae import VideoMAEBackbone
from pipeline.errors import ConfigError
from pipeline.standin.checkpoint import export, load_state, save_state
from pipeline.standin.config import BackboneConfig
from pipeline.standin.families import attention_for
from pipeline.standin.finetune import FootageConfig, fresh_head, from_scratch, varied_batch
from pipeline.standin.footage import Footage
from pipeline.standin.loop import BETAS, add_to_log, forget_after, seeded
from pipeline.standin.model import as_backbone
from pipeline.standin.pretrained import NO_CLASS
from pipeline.standin.train import descend, learning_rate, precision_of

DECODER_LAYERS = 4
"""As VideoMAE's small and base; width and heads are half of the encoder's, as there."""


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(FootageConfig):
    """Recipe of a masked pre-training."""

    mask_ratio: float = 0.9
    """Share of the places that are hidden, rounded down to whole places as in VideoMAE's code."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.family != "videomae":
            raise ConfigError(
                f"family {self.family!r} cannot be pre-trained: what is masked and drawn here are "
                "VideoMAE's tubelets, by VideoMAE's own decoder"
            )
        places = self.grid.h * self.grid.w
        if not 0 < self.mask_ratio < 1 or not self.num_hidden:
            raise ConfigError(
                f"mask_ratio must hide at least one of {places} places and show one, "
                f"got {self.mask_ratio!r}"
            )

    @property
    def num_hidden(self) -> int:
        """Places of the grid that are hidden, in each frame."""
        return int(self.mask_ratio * self.grid.h * self.grid.w)


def digest_of(videos: Sequence[Video]) -> str:
    """Hex SHA-256 of ids and paths: all that a pre-training uses of an annotation."""
    said = json.dumps([[video.video_id, video.path] for video in videos])
    return hashlib.sha256(said.encode()).hexdigest()


class Pretrainer:
    """One pre-training in one folder; see `pipeline.standin.loop.Training`.

    Attributes:
        classifier: what is saved; its encoder is the one that is trained.
        model: transformers' `VideoMAEForPreTraining` around it.
    """

    def __init__(
        self,
        config: PretrainConfig,
        clips: Footage,
        out: Path,
        device: str = "cpu",
        start: VideoMAEBackbone | None = None,
    ) -> None:
        self.config, self.footage, self.out, self.device = config, clips, out, device
        torch.manual_seed(config.seed)
        if start is None:
            self.classifier: Any = from_scratch(config, clips, [NO_CLASS])
        else:
            self.classifier = start.model.requires_grad_(True)
            self.classifier.set_attn_implementation(attention_for(config.precision))
            fresh_head(self.classifier, [NO_CLASS])
        self.model = with_decoder(self.classifier, config)
        self.backbone = as_backbone(self.classifier, config).to(device)
        self.model.to(device).train()
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), betas=BETAS, weight_decay=config.weight_decay
        )
        self.step = 0
        self.loss = math.nan
        if state := load_state(out, device):
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.step, self.loss = state["step"], state["loss"]
            forget_after(out, self.step)

    @property
    def num_steps(self) -> int:
        """Steps to do."""
        return self.config.steps

    def train_step(self) -> float:
        """One optimiser step; returns the loss."""
        config = self.config
        _, frames = varied_batch(config, self.footage, self.step, self.device)
        masks = tube_masks(config, len(frames), seeded(config.seed, 5, self.step)).to(self.device)
        with precision_of(config, self.device):
            loss = self.model(self.backbone.pixel_values(frames), bool_masked_pos=masks).loss
        descend(self.optimizer, loss, learning_rate(config, self.step))
        self.step += 1
        return float(loss.item())

    def look(self, loss: float, seconds: float) -> bool:
        """Logs and saves the checkpoint; it always goes on."""
        self.loss = loss
        add_to_log(
            self.out,
            {
                "step": self.step,
                "loss": round(loss, 4),
                "learning_rate": learning_rate(self.config, self.step - 1),
                "seconds": round(seconds, 1),
            },
        )
        export(self.classifier, self.out, self.config)
        return True

    def save(self) -> None:
        """Writes what a later run needs to go on from here."""
        state = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        save_state(self.out, {**state, "step": self.step, "loss": self.loss})


def with_decoder(classifier: Any, config: BackboneConfig) -> Any:
    """A `VideoMAEForPreTraining` whose encoder is a classifier's: the same weights, not a copy.

    The norm after the last block, which VideoMAE pre-trains as the encoder's, is the one that the
    classifier has: of the mean of its tokens, or of each.
    """
    from transformers import AutoModelForPreTraining

    width, heads = config.hidden_size // 2, max(1, config.num_heads // 2)
    settings = copy.deepcopy(classifier.config)
    settings.update(
        {
            "decoder_hidden_size": width,
            "decoder_num_attention_heads": math.gcd(width, heads),
            "decoder_num_hidden_layers": DECODER_LAYERS,
            "decoder_intermediate_size": 4 * width,
            "norm_pix_loss": True,
        }
    )
    attention = attention_for(config.precision)
    model = AutoModelForPreTraining.from_config(settings, attn_implementation=attention)
    encoder = classifier.videomae
    model.videomae.embeddings, model.videomae.encoder = encoder.embeddings, encoder.encoder
    model.videomae.layernorm = (
        encoder.layernorm if classifier.fc_norm is None else classifier.fc_norm
    )
    return model


def tube_masks(config: PretrainConfig, count: int, generator: torch.Generator) -> Tensor:
    """Which tokens are hidden, bool (count, N): each clip's own places, the same in every frame."""
    noise = torch.rand(count, config.grid.h * config.grid.w, generator=generator)
    hidden = torch.zeros_like(noise, dtype=torch.bool)
    hidden.scatter_(1, noise.argsort(1)[:, : config.num_hidden], True)
    return hidden.repeat(1, config.grid.t)
