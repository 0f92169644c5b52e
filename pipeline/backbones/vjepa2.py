"""V-JEPA 2 (Assran et al., 2025) with its attentive classifier, through Hugging Face transformers.

Its tokens carry no position: each block rotates queries and keys by a token's place on the grid,
which therefore stays with a token whatever else is dropped. A selector, which has no such block,
sees sinusoids of the place added to each token.

Axes: B clips, K tokens, H heads, d channels of a head, R of them rotated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.backbones.attention import attend, attention_evidence, split_heads
from pipeline.backbones.base import Block, Preprocessing
from pipeline.backbones.huggingface import (
    HalvedBlock,
    HuggingFaceBackbone,
    Sizes,
    prepare_halves,
)
from pipeline.backbones.precision import in_full_precision
from pipeline.backbones.tokens import KEYS, Evidence, Tokens, Wanted, grid_tokens
from pipeline.clips.grid import TokenGrid

_BASE = 10000  # of the wavelengths, as in the model's own code


class Rotary:
    """Turns pairs of channels by angles that grow with a token's place: a third for each axis.

    Worked out once for all blocks that a batch's tokens pass.

    Args:
        grid: of the tokens.
        head_size: channels of a head, d.
    """

    def __init__(self, grid: TokenGrid, head_size: int) -> None:
        self._grid = grid
        self._axis_size = head_size // 3 // 2 * 2
        self._place: Tensor | None = None
        self._found: tuple[Tensor, Tensor] | None = None

    def __call__(self, values: Tensor, place: Tensor) -> Tensor:
        """Rotate (B, H, K, d) queries or keys of tokens at `place` (B, K)."""
        cos, sin = self._table(place, values.dtype)
        turned, rest = values[..., : cos.shape[-1]], values[..., cos.shape[-1] :]
        first, second = turned.unflatten(-1, (-1, 2)).unbind(-1)
        across = torch.stack((-second, first), dim=-1).flatten(-2)
        return torch.cat([turned * cos + across * sin, rest], dim=-1)

    def _table(self, place: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Cosines and sines, (B, 1, K, R) each."""
        if self._found is None or self._place is not place or self._found[0].dtype != dtype:
            axes = angles(place, self._grid, self._axis_size // 2, dtype)
            # The model repeats the angles of an axis as a whole, though it turns neighbours.
            angle = torch.cat([axis for axis in axes for _ in range(2)], dim=-1)[:, None]
            self._place, self._found = place, (angle.cos(), angle.sin())
        return self._found


def angles(place: Tensor, grid: TokenGrid, num: int, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """Angles along time, height and width, (..., num) each, for tokens at `place` (...)."""
    # In the precision of the model, as its own code has them.
    speed = 1.0 / _BASE ** (torch.arange(num, dtype=dtype, device=place.device) / num)
    axes = (place // (grid.h * grid.w), place // grid.w % grid.h, place % grid.w)
    return tuple(axis[..., None] * speed for axis in axes)


def sinusoids(place: Tensor, grid: TokenGrid, size: int) -> Tensor:
    """Sines and cosines of the place along each axis, float32 (..., size); the rest is zero."""
    axes = angles(place, grid, size // 6, torch.float32)
    values = torch.cat([wave for axis in axes for wave in (axis.sin(), axis.cos())], dim=-1)
    return nn.functional.pad(values, (0, size - values.shape[-1]))


class VJEPA2Block(HalvedBlock):
    """A `VJEPA2Layer`, with the rotation worked out once for all of them.

    Args:
        layer: Hugging Face's.
        rotary: shared by the blocks of a run.
    """

    def __init__(self, layer: Any, rotary: Rotary) -> None:
        super().__init__(layer)
        self._rotary = rotary

    def attend(self, x: Tokens, want: Wanted, *, by_size: bool = False) -> tuple[Tokens, Evidence]:
        """See `Block.attend`."""
        layer, attention = self.layer, self.layer.attention
        normed = layer.norm1(x.values)
        query, key, value = (
            split_heads(project(normed), attention.num_attention_heads)
            for project in (attention.query, attention.key, attention.value)
        )
        turned = self._rotary(query, x.place), self._rotary(key, x.place)
        dropout = attention.dropout_prob if attention.training else 0.0
        context = attend(x, *turned, value, attention.scaling, by_size=by_size, dropout=dropout)
        update = layer.drop_path(attention.proj(context))
        seen = attention_evidence(*turned, attention.scaling, want)
        seen = seen._replace(keys=key if KEYS in want else None)
        return replace(x, values=update + x.values), seen

    def mlp(self, x: Tokens) -> Tokens:
        """See `Block.mlp`."""
        update = self.layer.mlp(self.layer.norm2(x.values))
        return replace(x, values=self.layer.drop_path(update) + x.values)


class VJEPA2Backbone(HuggingFaceBackbone):
    """A `VJEPA2ForVideoClassification`; its predictor, which classifies nothing, never runs."""

    model_type = "vjepa2"
    architecture = "VJEPA2ForVideoClassification"

    def __init__(self, model: Any, preprocessing: Preprocessing, digest: str = "") -> None:
        super().__init__(model, preprocessing, digest)
        prepare_halves(self._layers)

    @classmethod
    def sizes(cls, config: Any) -> Sizes:
        """See `HuggingFaceBackbone.sizes`."""
        return Sizes(
            num_channels=config.in_chans,
            num_frames=config.frames_per_clip,
            tubelet_size=config.tubelet_size,
            image_size=config.crop_size,
            patch_size=config.patch_size,
            num_heads=config.num_attention_heads,
        )

    @property
    def _layers(self) -> Any:
        return self.model.vjepa2.encoder.layer

    @property
    def blocks(self) -> Sequence[Block]:
        """The encoder's layers."""
        rotary = Rotary(self.grid, self.head_size)
        return [VJEPA2Block(layer, rotary) for layer in self._layers]

    def embed(self, pixel_values: Tensor) -> Tokens:
        """Tubelet embedding, without positions."""
        return grid_tokens(self.model.vjepa2.encoder.embeddings(pixel_values))

    def selector_input(self, x: Tokens) -> Tensor:
        """See `Backbone.selector_input`: `sinusoids` are added."""
        values = x.on_grid
        return values + sinusoids(x.place, self.grid, self.hidden_size).to(values.dtype)

    def head(self, x: Tokens) -> Tensor:
        """The last norm, the attentive pooler over all that is left, the classifier."""
        pooled = self.model.pooler(self.model.vjepa2.encoder.layernorm(x.values))
        return in_full_precision(self.model.classifier(pooled))

    def block_part(self, index: int, part: str) -> nn.Module:
        """`mlp` is the MLP's output before the residual, `norm1` the first layer norm."""
        layer: Any = self._layers[index]
        parts = {"mlp": layer.mlp, "output": layer.tap, "norm1": layer.norm1}
        return parts[part]
