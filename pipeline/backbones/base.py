"""What every backbone adapter offers: tokens in, logits out, for any subset of the tokens.

Axes: B clips, T frames, H and W pixels, N tokens of the full grid, K kept tokens, D channels.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.clips.grid import TokenGrid
from pipeline.errors import ConfigError

LAYER_PARTS = ("mlp", "output", "norm1")
_LAYER_PATTERN = re.compile(r"blocks\.(-?\d+)\.(" + "|".join(LAYER_PARTS) + ")")


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """The checkpoint's own pre-processing; everything up to the crop happens on uint8.

    Attributes:
        short_side: pixels the shorter side is resized to before the crop.
        crop_size: side of the square crop, in pixels.
        mean: per-channel mean on the 0..255 scale.
        std: per-channel standard deviation on the 0..255 scale.
    """

    short_side: int
    crop_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


class Backbone(nn.Module, ABC):
    """A frozen video transformer whose tokens may be dropped before the first block.

    Attributes:
        grid: token counts along time, height and width.
        num_frames: frames of one clip.
        tubelet_size: frames one token spans.
        patch_size: pixels one token spans along height and width.
        hidden_size: channels of a token, D.
        num_classes: length of the logits.
        label_names: class names in logit order, or None where the checkpoint names none.
        preprocessing: how uint8 frames become the model's input.
        digest: SHA-256 over weights and configuration; the checkpoint's identity.
    """

    grid: TokenGrid
    num_frames: int
    tubelet_size: int
    patch_size: int
    hidden_size: int
    num_classes: int
    label_names: list[str] | None
    preprocessing: Preprocessing
    digest: str

    @property
    @abstractmethod
    def blocks(self) -> nn.ModuleList:
        """The transformer blocks, each mapping (B, K, D) to (B, K, D)."""

    @abstractmethod
    def embed(self, pixel_values: Tensor) -> Tensor:
        """Turn normalised frames (B, T, 3, H, W) into tokens with positions (B, N, D)."""

    @abstractmethod
    def head(self, hidden: Tensor) -> Tensor:
        """Turn the last block's output (B, K, D) into float32 logits (B, num_classes)."""

    @abstractmethod
    def block_part(self, index: int, part: str) -> nn.Module:
        """The module of block `index` whose output is its `mlp`, `output` or `norm1`."""

    @property
    def image_size(self) -> int:
        """Side of the square input, in pixels."""
        return self.preprocessing.crop_size

    @property
    def short_side(self) -> int:
        """Pixels the shorter side of a frame is resized to before the crop."""
        return self.preprocessing.short_side

    @property
    def num_layers(self) -> int:
        """Number of transformer blocks."""
        return len(self.blocks)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the forward pass."""
        return next(self.parameters()).dtype

    def pixel_values(self, clips: np.ndarray | Tensor) -> Tensor:
        """Normalise uint8 clips (B, T, H, W, 3) to (B, T, 3, H, W) on the backbone's device.

        Equal bit for bit (in fp32) to the checkpoint's Hugging Face processor, which folds the
        rescaling into mean and standard deviation as is done here.
        """
        frames = torch.as_tensor(clips).to(self.device, non_blocking=True)
        frames = frames.permute(0, 1, 4, 2, 3).to(torch.float32)
        mean = torch.tensor(self.preprocessing.mean, device=self.device).view(3, 1, 1)
        std = torch.tensor(self.preprocessing.std, device=self.device).view(3, 1, 1)
        return frames.sub_(mean).div_(std).to(self.dtype)

    def forward_tokens(self, tokens: Tensor) -> Tensor:
        """Classify from any subset of a clip's tokens.

        Args:
            tokens: (B, K, D), 1 <= K <= N, in any order; positions are already in them.

        Returns:
            float32 logits (B, num_classes).
        """
        hidden = tokens
        for block in self.blocks:
            hidden = block(hidden)
        return self.head(hidden)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Classify (B, T, 3, H, W) from all tokens; equals the plain model."""
        return self.forward_tokens(self.embed(pixel_values))

    def resolve_layer(self, layer: str) -> str:
        """Write a layer's name with its absolute index: `blocks.-1.mlp` -> `blocks.11.mlp`.

        Raises:
            ConfigError: the name does not exist in this backbone.
        """
        if layer == "embeddings":
            return layer
        match = _LAYER_PATTERN.fullmatch(layer)
        index = int(match[1]) if match else 0
        if not match or not -self.num_layers <= index < self.num_layers:
            raise ConfigError(
                f"layer {layer!r} does not exist: use 'embeddings' or 'blocks.N.PART', N from "
                f"{-self.num_layers} to {self.num_layers - 1}, PART one of {', '.join(LAYER_PARTS)}"
            )
        return f"blocks.{index % self.num_layers}.{match[2]}"

    def target_module(self, layer: str) -> nn.Module:
        """The module behind a layer name other than `embeddings` (which no module outputs)."""
        _, index, part = self.resolve_layer(layer).split(".")
        return self.block_part(int(index), part)
