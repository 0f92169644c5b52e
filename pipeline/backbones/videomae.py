"""VideoMAE (Tong et al., 2022) through Hugging Face transformers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from pipeline.backbones.attention import attend, attention_evidence, split_heads
from pipeline.backbones.base import Block, Preprocessing
from pipeline.backbones.huggingface import HuggingFaceBackbone, Sizes
from pipeline.backbones.precision import in_full_precision
from pipeline.backbones.tokens import Evidence, Tokens, Wanted, grid_tokens


@dataclass(frozen=True)
class VideoMAEBlock:
    """A `VideoMAELayer`, whole or in halves; both give the same bits."""

    layer: Any

    def __call__(self, x: Tokens) -> Tokens:
        """The layer as Hugging Face runs it."""
        return replace(x, values=self.layer(x.values))

    def attend(self, x: Tokens, want: Wanted, *, by_size: bool = False) -> tuple[Tokens, Evidence]:
        """See `Block.attend`."""
        attention = self.layer.attention.attention
        normed = self.layer.layernorm_before(x.values)
        query, key, value = (
            split_heads(project(normed), attention.num_attention_heads)
            for project in (attention.query, attention.key, attention.value)
        )
        dropout = attention.dropout_prob if attention.training else 0.0
        context = attend(x, query, key, value, attention.scaling, by_size=by_size, dropout=dropout)
        update = self.layer.attention.output(context, x.values)
        seen = attention_evidence(query, key, attention.scaling, want)
        return replace(x, values=update + x.values), seen

    def mlp(self, x: Tokens) -> Tokens:
        """See `Block.mlp`."""
        hidden = self.layer.intermediate(self.layer.layernorm_after(x.values))
        return replace(x, values=self.layer.output(hidden, x.values))


class VideoMAEBackbone(HuggingFaceBackbone):
    """A `VideoMAEForVideoClassification`; VideoMAE V2 has the same shape.

    It classifies from the mean of its tokens, or (`use_mean_pooling` false, what fine-tuning the
    pre-trained release inherits) from its first one, which is a token of the grid like any other
    and is then always kept.
    """

    model_type = "videomae"
    architecture = "VideoMAEForVideoClassification"
    # Old checkpoints call the biases of query and value q_bias and v_bias.
    renamed = ((r"\.q_bias$", ".query.bias"), (r"\.v_bias$", ".value.bias"))

    def __init__(self, model: Any, preprocessing: Preprocessing, digest: str = "") -> None:
        super().__init__(model, preprocessing, digest)
        self.prefix = 0 if model.config.use_mean_pooling else 1

    @classmethod
    def sizes(cls, config: Any) -> Sizes:
        """See `HuggingFaceBackbone.sizes`."""
        return Sizes(
            num_channels=config.num_channels,
            num_frames=config.num_frames,
            tubelet_size=config.tubelet_size,
            image_size=config.image_size,
            patch_size=config.patch_size,
            num_heads=config.num_attention_heads,
        )

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        # Hugging Face keeps the position table as a plain attribute, which `.to` passes over: every
        # call would copy it to the device anew.
        embeddings = self.model.videomae.embeddings
        embeddings.position_embeddings = fn(embeddings.position_embeddings)
        return super()._apply(fn, recurse)

    @property
    def blocks(self) -> Sequence[Block]:
        """The encoder's layers."""
        return [VideoMAEBlock(layer) for layer in self.model.videomae.encoder.layer]

    def embed(self, pixel_values: Tensor) -> Tokens:
        """Tubelet embedding plus the fixed sinusoid positions."""
        return grid_tokens(self.model.videomae.embeddings(pixel_values, None), prefix=self.prefix)

    def head(self, x: Tokens) -> Tensor:
        """`classifier(fc_norm(mean over tokens))`, or `classifier(layernorm(first token))`."""
        if self.prefix:
            pooled = self.model.videomae.layernorm(x.values[:, 0])
        else:
            pooled = self.model.fc_norm(x.values.mean(1))
        return in_full_precision(self.model.classifier(pooled))

    def block_part(self, index: int, part: str) -> nn.Module:
        """`mlp` is fc2's output before the residual, `norm1` the first layer norm."""
        block: Any = self.model.videomae.encoder.layer[index]
        parts = {"mlp": block.output.dense, "output": block, "norm1": block.layernorm_before}
        return parts[part]
