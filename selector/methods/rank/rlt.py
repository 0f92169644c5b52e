"""Run-Length Tokenization (Choudhury et al., NeurIPS 2024): what did not change is not seen again.

Axes: B clips, N tokens of the full grid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from pipeline.backbones.base import Preprocessing
from selector.methods.base import ClipBatch, Method, Setting
from selector.methods.cost import CostModel, Flow
from selector.methods.rank.base import KeepBest
from selector.methods.rank.motion import pixel_change

TAU = 0.1
"""The paper's threshold, in the units of normalised pixels."""


def grey_levels(tau: float, preprocessing: Preprocessing) -> float:
    """A threshold on normalised pixels as a change of all three channels, of 255 grey levels."""
    return tau / _per_grey_level(preprocessing)


def tau_of(grey: float, preprocessing: Preprocessing) -> float:
    """The inverse of `grey_levels`."""
    return grey * _per_grey_level(preprocessing)


def _per_grey_level(preprocessing: Preprocessing) -> float:
    return sum(1 / std for std in preprocessing.std) / len(preprocessing.std)


class RLT(Method):
    """Keeps the first tubelet, and of all others what changed by more than a threshold.

    How many tokens that is, each clip's content decides: there is no budget to set, and what a clip
    costs is known once it was looked at. `evs` is the same at an exact budget.

    The authors' embedding of run lengths needs training and is left out.

    Its setting is the threshold, as `tau` and as `grey_levels`.

    Args:
        preprocessing: the checkpoint's, which says what `tau` is in grey levels.
        tau: a token is kept if the mean absolute change of its pixels, normalised as the checkpoint
            wants them, is above this.
    """

    by_content = True

    def __init__(self, preprocessing: Preprocessing, tau: float = TAU) -> None:
        self._setting = {"tau": tau, "grey_levels": grey_levels(tau, preprocessing)}

    def __str__(self) -> str:
        return "rlt"

    def prepare(self, batch: ClipBatch) -> torch.Tensor:
        """Changes since the tubelet before, (B, N) float32; infinite in the first tubelet."""
        change = pixel_change(batch).flatten(1)
        first = batch.backbone.grid.num_tokens - change.shape[1]
        return torch.cat([change.new_full((len(batch), first), torch.inf), change], dim=1)

    def reasons(self, prepared: torch.Tensor) -> Mapping[int, str]:
        """The clips whose pixels are not numbers."""
        unknown = prepared.isnan().any(dim=1).nonzero().flatten().tolist()
        return dict.fromkeys(unknown, f"the changes seen by {self} are not finite")

    def reducer(self, prepared: torch.Tensor, setting: Setting) -> KeepBest:
        """Keep what is above the threshold: each clip's highest, as many as those are."""
        return KeepBest(prepared, self.num_left(prepared, setting))

    def num_left(self, prepared: torch.Tensor, setting: Setting) -> torch.Tensor:
        """Tokens that each clip keeps, int64 (B,); what is no number counts as changed."""
        return (~(prepared <= setting["tau"])).sum(dim=1)

    def knobs(self, flow: Flow) -> Sequence[Setting]:
        """The threshold."""
        return [self._setting]

    def counts(self, setting: Setting, flow: Flow) -> None:
        """The content decides."""

    def setting(self, keep_ratio: float, costs: CostModel) -> Setting:
        """The threshold, whatever the budget."""
        return self._setting
