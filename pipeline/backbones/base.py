"""What every backbone adapter offers: tokens in, logits out, for any subset of the tokens.

Axes: B clips, T frames, H and W pixels, N tokens of the full grid, K kept tokens, D channels.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypedDict

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.backbones.inputs import normalised_clips, raw_clips
from pipeline.backbones.precision import as_precise_as_given, in_full_precision
from pipeline.backbones.tokens import NOTHING, Evidence, Reducer, Tokens, Wanted
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


class ClipFormat(TypedDict):
    """The clips that a backbone takes, as fields of a `pipeline.decode.DecodeRequest`."""

    num_frames: int
    size: int
    short_side: int
    min_frames: int


class Block(Protocol):
    """One transformer block: whole, or in its two halves where a method acts between them."""

    def __call__(self, x: Tokens) -> Tokens:
        """The whole block, as the checkpoint's own code runs it."""

    def attend(self, x: Tokens, want: Wanted, *, by_size: bool = False) -> tuple[Tokens, Evidence]:
        """Norm, attention and residual.

        Args:
            x: the block's input.
            want: the evidence to show.
            by_size: add log(size) of each key's token to its attention logits.
        """

    def mlp(self, x: Tokens) -> Tokens:
        """Norm, MLP and residual."""


@dataclass(frozen=True)
class LayerTarget:
    """Where an oracle looks: a module, and what its output says of the tokens of the grid.

    Attributes:
        module: its output, or the first of a tuple, is the activation.
        on_grid: turns that activation, or its gradient, into (B, N, D) in row-major order.
    """

    module: nn.Module
    on_grid: Callable[[Tensor], Tensor]


class Backbone(nn.Module, ABC):
    """A frozen video transformer whose tokens may be dropped or merged on their way.

    An adapter gives `embed`, `blocks`, `head` and `block_part`; `tests/conformance/backbones.py`
    holds what must be true of it.

    Attributes:
        model: the transformers model whose weights these are.
        grid: token counts along time, height and width.
        num_frames: frames of one clip.
        tubelet_size: frames one token spans.
        patch_size: pixels one token spans along height and width.
        hidden_size: channels of a token, D.
        head_size: channels of one attention head.
        num_classes: length of the logits.
        label_names: class names in logit order, or None where the checkpoint names none.
        preprocessing: how uint8 frames become the model's input.
        digest: SHA-256 over weights and configuration; the checkpoint's identity.
        prefix: leading tokens that no method may drop, because the head reads them.
        off_grid: how many of those lie on no grid (CLS).
        merging_refused: None, or the sentence that says why its tokens cannot be merged.
    """

    model: Any
    grid: TokenGrid
    num_frames: int
    tubelet_size: int
    patch_size: int
    hidden_size: int
    head_size: int
    num_classes: int
    label_names: list[str] | None
    preprocessing: Preprocessing
    digest: str
    prefix: int = 0
    off_grid: int = 0
    merging_refused: str | None = None

    @property
    @abstractmethod
    def blocks(self) -> Sequence[Block]:
        """The transformer blocks, in order."""

    @abstractmethod
    def embed(self, pixel_values: Tensor) -> Tokens:
        """Turn normalised frames (B, T, 3, H, W) into all tokens, as `grid_tokens` orders them."""

    @abstractmethod
    def head(self, x: Tokens) -> Tensor:
        """Turn the last block's output into logits (B, num_classes), in float32 at least."""

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
    def clip_format(self) -> ClipFormat:
        """The clips that it takes."""
        return ClipFormat(
            num_frames=self.num_frames,
            size=self.image_size,
            short_side=self.short_side,
            min_frames=self.tubelet_size,
        )

    @property
    def num_layers(self) -> int:
        """Number of transformer blocks."""
        return len(self.blocks)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self._first_weight().device

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the forward pass."""
        return self._first_weight().dtype

    def _first_weight(self) -> Tensor:
        weight = next(self.parameters(), None)
        if weight is not None:
            return weight
        # In replicas of nn.DataParallel the weights are plain attributes.
        attributes = (value for module in self.modules() for value in vars(module).values())
        return next(v for v in attributes if isinstance(v, Tensor) and v.is_floating_point())

    def pixel_values(self, clips: np.ndarray | Tensor) -> Tensor:
        """Normalise uint8 clips (B, T, H, W, 3) to (B, T, 3, H, W) on the backbone's device.

        Equal bit for bit (in fp32) to the checkpoint's Hugging Face processor, which folds the
        rescaling into mean and standard deviation as is done here.

        Raises:
            ConfigError: another shape or type; see `pipeline.backbones.inputs`.
        """
        frames = raw_clips(clips, self)
        # From uint8 this is always a copy: the caller's frames are not written into.
        frames = frames.to(self.device, non_blocking=True).permute(0, 1, 4, 2, 3).to(torch.float32)
        mean = torch.tensor(self.preprocessing.mean, device=self.device).view(3, 1, 1)
        std = torch.tensor(self.preprocessing.std, device=self.device).view(3, 1, 1)
        return frames.sub_(mean).div_(std).to(self.dtype)

    def checked(self, pixel_values: Tensor) -> Tensor:
        """A user's normalised frames (B, T, 3, H, W), on the backbone's device and in its dtype.

        Raises:
            ConfigError: another shape or type, or raw frames; see `pipeline.backbones.inputs`.
        """
        return normalised_clips(pixel_values, self)

    def encode(self, x: Tokens, reducer: Reducer | None = None) -> Tokens:
        """What is left of any tokens of a clip after the last block.

        Args:
            x: in any order after the prefix, at least one; positions are already in them, or
                follow from their places.
            reducer: what happens to them on their way; None keeps them all.
        """
        reducer = reducer or Reducer()
        x = reducer.before(x)
        for layer, block in enumerate(self.blocks):
            want = reducer.wants(layer)
            by_size = reducer.proportional and x.size is not None
            if want is None and not by_size:
                x = block(x)
                continue
            x, seen = block.attend(x, want or NOTHING, by_size=by_size)
            if want is None:
                x = block.mlp(x)
                continue
            with as_precise_as_given(x.values):
                x = reducer.between(layer, x, seen)
            x = block.mlp(x)
            with as_precise_as_given(x.values):
                x = reducer.after(layer, x, seen)
        return x

    def run(self, x: Tokens, reducer: Reducer | None = None) -> Tensor:
        """Classify from any tokens of a clip: logits (B, num_classes) as of `head`; see `encode`.

        Where the reducer leaves clips other numbers of tokens, those with equally many run
        together.
        """
        if x.values.shape[0] == 0:  # what Hugging Face's reshapes do not take
            return in_full_precision(x.values.new_empty((0, self.num_classes)))
        parts = None if reducer is None else reducer.split()
        if parts is None:
            return self.head(self.encode(x, reducer))
        rows, reducers = zip(*parts, strict=True)
        each = [
            self.head(self.encode(x.rows(r), own)) for r, own in zip(rows, reducers, strict=True)
        ]
        return torch.cat(each)[torch.cat(rows).argsort()]

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Classify (B, T, 3, H, W) from all tokens; equals the plain model."""
        return self.run(self.embed(self.checked(pixel_values)))

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

    def layer_target(self, layer: str) -> LayerTarget:
        """Where an oracle of `layer` looks; not for `embeddings`, which no module outputs.

        Raises:
            ConfigError: no such layer, or one whose gradient is zero on every token of the grid.
        """
        _, index, part = self.resolve_layer(layer).split(".")
        if self.prefix and int(index) == self.num_layers - 1 and part != "norm1":
            raise ConfigError(
                f"layer {layer!r} says nothing about tokens here: the head reads the first token "
                "only, so after the last attention every other token's gradient is zero. Use "
                f"blocks.-1.norm1, or blocks.-2.{part}"
            )
        return LayerTarget(self.block_part(int(index), part), self.on_grid)

    def selector_input(self, x: Tokens) -> Tensor:
        """What a selector sees of all tokens as `embed` gives them: (B, N, D), with positions."""
        return x.on_grid

    def on_grid(self, activations: Tensor) -> Tensor:
        """What a layer's activations (B, off_grid + N, D) say of the grid's tokens, (B, N, D)."""
        return activations[:, self.off_grid :]
