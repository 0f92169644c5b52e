"""ViViT (Arnab et al., 2021), model 1: all tubelets attend to all; through transformers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from pipeline.backbones.attention import attend, attention_evidence, split_heads
from pipeline.backbones.base import Block, Preprocessing
from pipeline.backbones.huggingface import HuggingFaceBackbone, Sizes, UnusableError
from pipeline.backbones.precision import in_full_precision
from pipeline.backbones.tokens import Evidence, Tokens, Wanted, grid_tokens


@dataclass(frozen=True)
class VivitBlock:
    """A `VivitLayer`, whole or in halves; both give the same bits."""

    layer: Any

    def __call__(self, x: Tokens) -> Tokens:
        """The layer as Hugging Face runs it."""
        return replace(x, values=self.layer(x.values))

    def attend(self, x: Tokens, want: Wanted, *, by_size: bool = False) -> tuple[Tokens, Evidence]:
        """See `Block.attend`."""
        attention = self.layer.attention
        normed = self.layer.layernorm_before(x.values)
        query, key, value = (
            split_heads(project(normed), attention.num_attention_heads)
            for project in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        dropout = attention.attention_dropout if attention.training else 0.0
        context = attend(x, query, key, value, attention.scaling, by_size=by_size, dropout=dropout)
        update = self.layer.dropout(attention.o_proj(context))
        seen = attention_evidence(query, key, attention.scaling, want)
        return replace(x, values=update + x.values), seen

    def mlp(self, x: Tokens) -> Tokens:
        """See `Block.mlp`."""
        update = self.layer.dropout(self.layer.mlp(self.layer.layernorm_after(x.values)))
        return replace(x, values=update + x.values)


class VivitBackbone(HuggingFaceBackbone):
    """A `VivitForVideoClassification`; a CLS token in front is what its head reads.

    Raises:
        BackboneError: also where this release of transformers has the layers of another one.
    """

    model_type = "vivit"
    architecture = "VivitForVideoClassification"
    prefix = off_grid = 1
    renamed = (
        (r"\.encoder\.layer\.(\d+)\.", r".layers.\1."),
        (r"\.attention\.attention\.(query|key|value)\.", r".attention.\1."),
        (r"\.attention\.query\.", ".attention.q_proj."),
        (r"\.attention\.key\.", ".attention.k_proj."),
        (r"\.attention\.value\.", ".attention.v_proj."),
        (r"\.attention\.output\.dense\.", ".attention.o_proj."),
        (r"\.intermediate\.dense\.", ".mlp.fc1."),
        (r"\.output\.dense\.", ".mlp.fc2."),
    )

    def __init__(self, model: Any, preprocessing: Preprocessing, digest: str = "") -> None:
        super().__init__(model, preprocessing, digest)
        if not hasattr(model.vivit, "layers"):
            import transformers

            raise UnusableError(
                f"transformers {transformers.__version__} builds ViViT of other layers than are "
                "known here: install 5.24 or newer"
            )

    @classmethod
    def sizes(cls, config: Any) -> Sizes:
        """See `HuggingFaceBackbone.sizes`."""
        return Sizes(
            num_channels=config.num_channels,
            num_frames=config.num_frames,
            tubelet_size=config.tubelet_size[0],
            image_size=config.image_size,
            patch_size=list(config.tubelet_size[1:]),
            num_heads=config.num_attention_heads,
        )

    @property
    def blocks(self) -> Sequence[Block]:
        """The encoder's layers."""
        return [VivitBlock(layer) for layer in self.model.vivit.layers]

    def embed(self, pixel_values: Tensor) -> Tokens:
        """Tubelet embedding plus the learnt positions, CLS in front."""
        values = self.model.vivit.embeddings(pixel_values)
        return grid_tokens(values, prefix=self.prefix, off_grid=self.off_grid)

    def head(self, x: Tokens) -> Tensor:
        """`classifier(layernorm(CLS))`."""
        pooled = self.model.vivit.layernorm(x.values[:, 0])
        return in_full_precision(self.model.classifier(pooled))

    def block_part(self, index: int, part: str) -> nn.Module:
        """`mlp` is the MLP's output before the residual, `norm1` the first layer norm."""
        layer: Any = self.model.vivit.layers[index]
        parts = {"mlp": layer.mlp, "output": layer, "norm1": layer.layernorm_before}
        return parts[part]
