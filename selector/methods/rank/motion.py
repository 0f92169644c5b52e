"""Rankings by change between neighbouring tubelets, from what the backbone has at hand anyway."""

from __future__ import annotations

import torch

from pipeline.backbones.base import Backbone
from selector.methods.rank.base import ClipBatch, Ranking, RankingMethod


class MotionMethod(RankingMethod):
    """Distance of a patch embedding to the one before it in time, without positions.

    The rule of EVEREST and of FluxViT's selector: `||E x[t] - E x[t-1]||`, and the first tubelet
    takes the scores of the second.

    Args:
        backbone: its patch embedding must be linear up to bias and position, as every ViT's is.
    """

    def __init__(self, backbone: Backbone) -> None:
        side = backbone.image_size
        nothing = torch.zeros(
            (1, backbone.num_frames, 3, side, side), dtype=backbone.dtype, device=backbone.device
        )
        with torch.no_grad():
            self._offset = backbone.embed(nothing).on_grid  # bias and positions, which E x lacks

    def __str__(self) -> str:
        return "motion"

    def rank(self, batch: ClipBatch) -> Ranking:
        """Euclidean distances, (B, N) float32."""
        embedded = (
            (batch.tokens.on_grid - self._offset).float().unflatten(1, tuple(batch.backbone.grid))
        )
        return Ranking(_pad_first(embedded.diff(dim=1).norm(dim=-1)))


class PixelMotionMethod(RankingMethod):
    """Mean absolute change of a token's pixels from one tubelet to the next.

    The first frame of the tubelet before is compared with the last frame of this one, as in
    Run-Length Tokenization, so that motion within a tubelet counts too; the first tubelet takes
    the scores of the second.
    """

    def __str__(self) -> str:
        return "motion-pixels"

    def rank(self, batch: ClipBatch) -> Ranking:
        """Mean absolute differences over patch and channels, (B, N) float32."""
        backbone = batch.backbone
        frames = batch.pixel_values.float().unflatten(1, (backbone.grid.t, -1))
        change = (frames[:, 1:, -1] - frames[:, :-1, 0]).abs().mean(dim=2)  # (B, t-1, H, W)
        p = backbone.patch_size
        patches = change.unflatten(3, (-1, p)).unflatten(2, (-1, p))
        return Ranking(_pad_first(patches.mean(dim=(3, 5))))


def _pad_first(maps: torch.Tensor) -> torch.Tensor:
    """(B, t-1, y, x) of tubelets from the second on -> (B, N); a lone tubelet scores 0."""
    if maps.shape[1] == 0:
        return maps.new_zeros(maps.shape[0], maps.shape[2] * maps.shape[3])
    return torch.cat([maps[:, :1], maps], dim=1).flatten(1)
