"""How sure a cheap look at a clip is: what LITE++ sets its budget by.

Written as `backbone:RATIO`, `hf:FOLDER_OR_ID` or `torchvision:NAME@WEIGHTS`, in `lite.json` and on
the command line alike. The paper uses MoViNet; any video classifier will do, and so will the
backbone itself on a handful of tokens, which needs no second model.

Axes: B clips, T frames, N tokens, D channels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import nn

from pipeline.backbones.base import Backbone
from pipeline.errors import ConfigError
from selector.cost import CostModel
from selector.keep import num_kept, take_tokens, top_tokens

DEFAULT_CONFIDENCE = "backbone:0.05"


class Confidence(nn.Module, ABC):
    """Maps clips to confidences (B,) in [0, 1].

    Attributes:
        gmacs: what one view costs, beyond the embedding and the selector that LITE runs anyway.
    """

    gmacs: float

    @abstractmethod
    def forward(
        self, pixel_values: torch.Tensor, tokens: torch.Tensor, ranking: torch.Tensor
    ) -> torch.Tensor:
        """Judge a batch.

        Args:
            pixel_values: (B, T, 3, H, W), normalised for the backbone.
            tokens: (B, N, D), the backbone's embeddings of them.
            ranking: (B, N), the selector's logits of those.
        """


class BackboneConfidence(Confidence):
    """The backbone's own largest class probability when it sees very few tokens."""

    def __init__(self, backbone: Backbone, keep_ratio: float) -> None:
        super().__init__()
        # Not registered: the weights belong to the model that this serves.
        self._backbone = (backbone,)
        self.num_kept = num_kept(backbone.grid.num_tokens, keep_ratio)
        self.gmacs = CostModel(backbone).at(self.num_kept).blocks

    def forward(
        self, pixel_values: torch.Tensor, tokens: torch.Tensor, ranking: torch.Tensor
    ) -> torch.Tensor:
        """The largest class probability, (B,) float32."""
        kept = take_tokens(tokens, top_tokens(ranking, self.num_kept))
        return largest_probability(self._backbone[0].forward_tokens(kept))


def largest_probability(logits: torch.Tensor) -> torch.Tensor:
    """Maximum of the softmax, (B, C) -> (B,) float32."""
    return logits.float().softmax(dim=-1).amax(dim=-1)


def load_confidence(spec: str, backbone: Backbone) -> Confidence:
    """Make what `spec` names, for clips prepared for `backbone`, on its device.

    Args:
        spec: `backbone:RATIO`; `hf:` with a folder or hub id of a Hugging Face video classifier;
            or `torchvision:NAME@WEIGHTS`, WEIGHTS being a local state dict or one of
            torchvision's names (`KINETICS400_V1`).
        backbone: the backbone that the budget is for.

    Raises:
        ConfigError: `spec` is none of these, or the model cannot be loaded or used.
    """
    kind, _, name = spec.partition(":")
    if kind == "backbone":
        try:
            keep_ratio = float(name)
        except ValueError:
            raise ConfigError(f"confidence {spec!r}: {name!r} is not a keep ratio") from None
        return BackboneConfidence(backbone, keep_ratio)
    if kind in ("hf", "torchvision") and name:
        from selector.classifiers import load_classifier

        return load_classifier(kind, name, backbone)
    raise ConfigError(
        f"a confidence is backbone:RATIO, hf:FOLDER_OR_ID or torchvision:NAME@WEIGHTS, got {spec!r}"
    )
