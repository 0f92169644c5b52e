"""How sure a cheap look at a clip is: what LITE++ sets its budget by.

Here is what all kinds have in common, and the backbone itself on few tokens, which needs no second
model. The paper uses MoViNet; other models are in `selector.budgets.classifiers`, and
`selector.budgets.confidence_names` makes any of them from its name.

Axes: B clips, T frames, N tokens, D channels, C classes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import nn

from pipeline.backbones.base import Backbone
from pipeline.backbones.tokens import Tokens, reduce
from selector.methods.cost import CostModel
from selector.methods.keep import best_tokens, num_kept


@dataclass(frozen=True)
class Judgement:
    """What a confidence model says of a batch.

    Attributes:
        confidence: float32 (B,) in [0, 1].
        answers: number of kept tokens -> the backbone's float32 logits (B, C) on the best so many,
            where judging already gave them: they need no second pass.
    """

    confidence: torch.Tensor
    answers: Mapping[int, torch.Tensor] = field(default_factory=dict)


class Confidence(nn.Module, ABC):
    """Judges clips.

    Attributes:
        gmacs: what one view costs, beyond the embedding and the selector that LITE runs anyway.
    """

    gmacs: float

    @abstractmethod
    def forward(
        self, pixel_values: torch.Tensor, tokens: Tokens, ranking: torch.Tensor
    ) -> Judgement:
        """Judge a batch.

        Args:
            pixel_values: (B, T, 3, H, W), normalised for the backbone.
            tokens: all tokens of the clips, as the backbone embeds them.
            ranking: (B, N), the selector's logits of those.
        """

    def extra_gmacs(self, num_tokens_kept: int) -> float:
        """What it adds to a view that is then classified from so many tokens.

        Args:
            num_tokens_kept: where the judgement has the answer on these, it adds nothing.
        """
        return self.gmacs


class BackboneConfidence(Confidence):
    """The backbone's own largest class probability when it sees only its few best tokens."""

    def __init__(self, backbone: Backbone, keep_ratio: float) -> None:
        super().__init__()
        # Not registered: the weights belong to the model that this serves.
        self._backbone = (backbone,)
        self.num_kept = num_kept(backbone.grid.num_tokens, keep_ratio)
        self.gmacs = CostModel(backbone).blocks(self.num_kept)

    def forward(
        self, pixel_values: torch.Tensor, tokens: Tokens, ranking: torch.Tensor
    ) -> Judgement:
        """Classify from few tokens; that is also the answer of the clips that get no more."""
        kept = reduce(tokens, best_tokens(tokens, ranking, self.num_kept))
        logits = self._backbone[0].run(kept)
        return Judgement(largest_probability(logits), {self.num_kept: logits})

    def extra_gmacs(self, num_tokens_kept: int) -> float:
        """Nothing for the clips that keep as few."""
        return 0.0 if num_tokens_kept == self.num_kept else self.gmacs


def largest_probability(logits: torch.Tensor) -> torch.Tensor:
    """Maximum of the softmax, (B, C) -> (B,) float32."""
    return logits.float().softmax(dim=-1).amax(dim=-1)
