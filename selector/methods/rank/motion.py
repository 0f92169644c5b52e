"""Rankings by change between neighbouring tubelets, from what the backbone has at hand anyway."""

from __future__ import annotations

import torch

from pipeline.backbones.base import Backbone
from pipeline.backbones.precision import in_full_precision
from selector.methods.rank.base import ClipBatch, Ranking, RankingMethod
from selector.methods.spread import even_lattice


class MotionMethod(RankingMethod):
    """Distance of a patch embedding to the one before it in time, without positions.

    The rule of EVEREST: `||E x[t] - E x[t-1]||`, and the first tubelet takes the scores of the
    second. FluxViT's selector does the same within each of a few spans of time.

    Args:
        backbone: its patch embedding must be linear up to bias and position, as every ViT's is.
        num_spans: consecutive spans that know nothing of each other; must divide the tubelets.
    """

    ties = True

    def __init__(self, backbone: Backbone, num_spans: int = 1) -> None:
        side = backbone.image_size
        nothing = torch.zeros(
            (1, backbone.num_frames, 3, side, side), dtype=backbone.dtype, device=backbone.device
        )
        self._num_spans = num_spans
        with torch.no_grad():
            self._offset = backbone.embed(nothing).on_grid  # bias and positions, which E x lacks

    def __str__(self) -> str:
        return "motion"

    def rank(self, batch: ClipBatch) -> Ranking:
        """Euclidean distances, (B, N) float32."""
        grid = batch.backbone.grid
        values = in_full_precision(batch.tokens.on_grid)
        embedded = values - self._offset.to(values)  # a model may have moved since
        spans = embedded.reshape(-1, grid.t // self._num_spans, grid.h, grid.w, embedded.shape[-1])
        return Ranking(_pad_first(spans.diff(dim=1).norm(dim=-1)).view(batch.num_clips, -1))


class PixelMotionMethod(RankingMethod):
    """Mean absolute change of a token's pixels from one tubelet to the next.

    The first tubelet takes the scores of the second.
    """

    ties = True

    def __str__(self) -> str:
        return "motion-pixels"

    def rank(self, batch: ClipBatch) -> Ranking:
        """Mean absolute differences over patch and channels, (B, N) float32."""
        backbone = batch.backbone
        return Ranking(pixel_motion(batch.pixel_values, backbone.grid.t, backbone.patch_size))


class EVSMethod(RankingMethod):
    """Efficient Video Sampling (2025): what changed since the tubelet before, at an exact budget.

    It is Run-Length Tokenization (Choudhury et al., 2024) with the number of tokens given instead
    of the threshold. The first tubelet, which says what everything after it is a change of, is
    kept before all others; where it does not fit the budget, an even part of it.
    """

    ties = True

    def __str__(self) -> str:
        return "evs"

    def rank(self, batch: ClipBatch) -> Ranking:
        """Mean absolute changes, (B, N) float32; those of the first tubelet above all others."""
        change = pixel_change(batch).flatten(1)
        first = torch.from_numpy(even_lattice(batch.backbone.grid))[: -change.shape[1] or None]
        highest = change.amax(dim=1, keepdim=True) if change.numel() else change.new_zeros(1, 1)
        first = 1 + highest + first.to(change).expand(batch.num_clips, -1)
        return Ranking(torch.cat([first, change], dim=1))


def pixel_motion(pixel_values: torch.Tensor, num_tubelets: int, patch_size: int) -> torch.Tensor:
    """The scores of `motion-pixels`, (B, N) float32, of normalised frames (B, T, 3, H, W)."""
    return _pad_first(_change(pixel_values, num_tubelets, patch_size))


def pixel_change(batch: ClipBatch) -> torch.Tensor:
    """Mean absolute change of each token's pixels since the tubelet before, (B, t - 1, y, x).

    The last frame of a tubelet is compared with the first of the one before, as in Run-Length
    Tokenization.
    """
    return _change(batch.pixel_values, batch.backbone.grid.t, batch.backbone.patch_size)


def _change(pixel_values: torch.Tensor, num_tubelets: int, patch_size: int) -> torch.Tensor:
    frames = in_full_precision(pixel_values).unflatten(1, (num_tubelets, -1))
    change = (frames[:, 1:, -1] - frames[:, :-1, 0]).abs().mean(dim=2)  # (B, t-1, H, W)
    patches = change.unflatten(3, (-1, patch_size)).unflatten(2, (-1, patch_size))
    return patches.mean(dim=(3, 5))


def _pad_first(maps: torch.Tensor) -> torch.Tensor:
    """(B, t-1, y, x) of tubelets from the second on -> (B, N); a lone tubelet scores 0."""
    if maps.shape[1] == 0:
        return maps.new_zeros(maps.shape[0], maps.shape[2] * maps.shape[3])
    return torch.cat([maps[:, :1], maps], dim=1).flatten(1)
