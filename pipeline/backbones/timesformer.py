"""TimeSformer (Bertasius et al., 2021), joint or divided, through Hugging Face transformers.

Its tokens are patches of single frames; a CLS token in front is what the head reads. Hugging Face
has them column by column; here they come frame by frame, as those of every backbone.

Axes: B clips, K tokens, H heads, D channels, P places of a frame, T frames.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.backbones.attention import attend, attention_evidence, evidence, split_heads
from pipeline.backbones.base import Block, Preprocessing
from pipeline.backbones.huggingface import (
    HalvedBlock,
    HuggingFaceBackbone,
    Sizes,
    UnusableError,
    prepare_halves,
)
from pipeline.backbones.precision import in_full_precision
from pipeline.backbones.segments import Segments, segments_of
from pipeline.backbones.tokens import Evidence, Tokens, Wanted, grid_tokens
from pipeline.clips.grid import TokenGrid
from pipeline.errors import ConfigError

JOINT, DIVIDED = "joint_space_time", "divided_space_time"
NO_MERGING = (
    "divided attention ties each token to its frame and to its column through time, and a merged "
    "token has neither"
)


class JointBlock(HalvedBlock):
    """All tokens attend to all; by a fused kernel, where Hugging Face forms the N x N map."""

    def attend(self, x: Tokens, want: Wanted, *, by_size: bool = False) -> tuple[Tokens, Evidence]:
        """See `Block.attend`."""
        layer, attention = self.layer, self.layer.attention.attention
        query, key, value = (
            split_heads(part, attention.num_heads)
            for part in attention.qkv(layer.layernorm_before(x.values)).chunk(3, dim=-1)
        )
        context = attend(
            x,
            query,
            key,
            value,
            attention.scale,
            by_size=by_size,
            dropout=_dropout(attention),
        )
        update = layer.drop_path(layer.attention.output(context))
        return replace(x, values=x.values + update), attention_evidence(
            query, key, attention.scale, want
        )

    def mlp(self, x: Tokens) -> Tokens:
        """See `Block.mlp`."""
        layer = self.layer
        update = layer.output(layer.intermediate(layer.layernorm_after(x.values)))
        return replace(x, values=x.values + layer.drop_path(update))


def _dropout(attention: Any) -> float:
    share: float = attention.attn_drop.p
    return share if attention.training else 0.0


class Layout:
    """The columns and frames of a batch's tokens, worked out once for all blocks they pass."""

    def __init__(self, grid: TokenGrid) -> None:
        self._grid = grid
        self._place: Tensor | None = None
        self._found: tuple[Segments, Segments] | None = None

    def of(self, place: Tensor) -> tuple[Segments, Segments]:
        """Columns and frames of tokens at `place` (B, 1 + K), CLS in front."""
        if place is not self._place or self._found is None:
            on_grid, (t, h, w) = place[:, 1:], self._grid
            columns = segments_of(on_grid % (h * w), h * w, t, all_count=False)
            frames = segments_of(on_grid // (h * w), t, h * w, all_count=True)
            self._place, self._found = place, (columns, frames)
        return self._found


class DividedBlock(JointBlock):
    """Tokens attend to those of their column, then to CLS and those of their frame.

    Exact for any tokens of the grid: CLS stands in every frame, also in one that has no token left,
    and takes over the mean of what it saw there. What a method is shown is of the second attention.

    Args:
        layer: Hugging Face's.
        layout: shared by the blocks of a run.
        grid: of the tokens.
    """

    def __init__(self, layer: Any, layout: Layout, grid: TokenGrid) -> None:
        super().__init__(layer)
        self._layout, self._grid = layout, grid

    def attend(self, x: Tokens, want: Wanted, *, by_size: bool = False) -> tuple[Tokens, Evidence]:
        """See `Block.attend`.

        Raises:
            ConfigError: sizes are to count, but merged tokens have no place here.
        """
        if by_size:
            raise ConfigError(f"tokens cannot have sizes here: {NO_MERGING}")
        layer = self.layer
        columns, frames = self._layout.of(x.place)
        cls, kept = x.values[:, :1], x.values[:, 1:]

        over_time = layer.temporal_attention.attention
        qkv = over_time.qkv(layer.temporal_layernorm(kept))
        context = columns.attend(
            qkv, over_time.num_heads, over_time.scale, None, _dropout(over_time)
        )
        update = layer.drop_path(layer.temporal_attention.output(context))
        values = torch.cat([cls, kept + layer.temporal_dense(update)], dim=1)

        within = layer.attention.attention
        qkv = within.qkv(layer.layernorm_before(values))
        context = frames.attend(
            qkv[:, 1:], within.num_heads, within.scale, qkv[:, :1], _dropout(within)
        )
        values = values + layer.drop_path(layer.attention.output(context))

        query, key, _ = (split_heads(part, within.num_heads) for part in qkv.chunk(3, dim=-1))
        frame = x.place[:, 1:] // (self._grid.h * self._grid.w)
        maps = frame_maps(query, key, within.scale, frame, self._grid.t)
        return replace(x, values=values), evidence(maps, key, want)


def frame_maps(
    query: Tensor, key: Tensor, scale: float, frame: Tensor, num_frames: int
) -> Iterator[Tensor]:
    """Attention probabilities within frames, (H, 1 + K, 1 + K) for each clip, CLS in front.

    Args:
        query: (B, H, 1 + K, d).
        key: (B, H, 1 + K, d).
        scale: of their products.
        frame: int64 (B, K), of each token but CLS.
        num_frames: T; CLS is in each, and its row is the mean over them.
    """
    every = torch.arange(num_frames, device=frame.device)[:, None]
    for q, k, own in zip(query, key, frame, strict=True):
        logits = in_full_precision(q) @ in_full_precision(k).transpose(-1, -2) * scale
        # Queries: CLS once for each frame, then the tokens. Keys: CLS, then the tokens.
        asked = torch.cat([every, own[:, None]])
        seen = nn.functional.pad(asked == own, (1, 0), value=True)
        logits = torch.cat([logits[:, :1].expand(-1, num_frames, -1), logits[:, 1:]], dim=1)
        maps = logits.masked_fill(~seen, -torch.inf).softmax(dim=-1)
        cls = maps[:, :num_frames].mean(dim=1, keepdim=True)
        yield torch.cat([cls, maps[:, num_frames:]], dim=1)


class TimesformerBackbone(HuggingFaceBackbone):
    """A `TimesformerForVideoClassification` with joint or divided attention."""

    model_type = "timesformer"
    architecture = "TimesformerForVideoClassification"
    prefix = off_grid = 1

    def __init__(self, model: Any, preprocessing: Preprocessing, digest: str = "") -> None:
        super().__init__(model, preprocessing, digest)
        kind = model.config.attention_type
        if kind not in (JOINT, DIVIDED):
            raise UnusableError(
                f"attention_type is {kind!r}, whose frames never meet; {JOINT} and {DIVIDED} can be"
            )
        self.merging_refused = NO_MERGING if kind == DIVIDED else None
        prepare_halves(self._layers)

    @classmethod
    def sizes(cls, config: Any) -> Sizes:
        """See `HuggingFaceBackbone.sizes`."""
        return Sizes(
            num_channels=config.num_channels,
            num_frames=config.num_frames,
            tubelet_size=1,
            image_size=config.image_size,
            patch_size=config.patch_size,
            num_heads=config.num_attention_heads,
        )

    @property
    def _layers(self) -> Any:
        return self.model.timesformer.encoder.layer

    @property
    def blocks(self) -> Sequence[Block]:
        """The encoder's layers."""
        if self.merging_refused is None:
            return [JointBlock(layer) for layer in self._layers]
        layout = Layout(self.grid)
        return [DividedBlock(layer, layout, self.grid) for layer in self._layers]

    def embed(self, pixel_values: Tensor) -> Tokens:
        """Patch embedding plus the learnt positions in space and time, CLS in front."""
        values = self.model.timesformer.embeddings(pixel_values)
        by_column = values[:, 1:].unflatten(1, (self.grid.h * self.grid.w, self.grid.t))
        values = torch.cat([values[:, :1], by_column.transpose(1, 2).flatten(1, 2)], dim=1)
        return grid_tokens(values, prefix=self.prefix, off_grid=self.off_grid)

    def head(self, x: Tokens) -> Tensor:
        """`classifier(layernorm(CLS))`."""
        pooled = self.model.timesformer.layernorm(x.values[:, 0])
        return in_full_precision(self.model.classifier(pooled))

    def block_part(self, index: int, part: str) -> nn.Module:
        """`mlp` is fc2's output before the residual, `norm1` the norm before space attention."""
        layer: Any = self._layers[index]
        parts = {"mlp": layer.output, "output": layer.tap, "norm1": layer.layernorm_before}
        return parts[part]
