"""Ranking by visual saliency, frame by frame.

The paper uses CPFE, a network whose weights no package carries. Ours is OpenCV's spectral residual
(Hou and Zhang, 2007): it needs no weights, and is what a library in good keeping offers. A learnt
detector may do better; read the numbers of this ranking as those of a classical one. OpenCV scales
the map of each frame to [0, 1], so that something stands out in every frame.
"""

from __future__ import annotations

import numpy as np
import torch

from pipeline.errors import ConfigError
from selector.methods.rank.base import ClipBatch, Ranking, RankingMethod

_CREATE = "StaticSaliencySpectralResidual_create"


class SaliencyMethod(RankingMethod):
    """Mean spectral-residual saliency over each token's pixels and frames.

    Runs on the CPU on 64x64 copies of the frames (OpenCV's own choice); no multiply-accumulate is
    counted.

    Raises:
        ConfigError: the installed OpenCV has no saliency module.
    """

    unseen = "the decoded frames"
    ties = True

    def __init__(self) -> None:
        import cv2

        # Another OpenCV wheel installed over contrib's leaves an empty module behind.
        create = getattr(getattr(cv2, "saliency", None), _CREATE, None)
        if create is None:
            raise ConfigError(
                "method saliency needs OpenCV's contrib modules: pip install "
                "'lite-pipeline[saliency]', and if another OpenCV package took its place: pip "
                "install --force-reinstall --no-deps opencv-contrib-python-headless"
            )
        self._detector = create()

    def __str__(self) -> str:
        return "saliency"

    def rank(self, batch: ClipBatch) -> Ranking:
        """Mean saliency, (B, N) float32 in [0, 1]."""
        grid, p = batch.backbone.grid, batch.backbone.patch_size
        frames = batch.frames.reshape(-1, *batch.frames.shape[2:])
        maps = torch.from_numpy(np.stack([self._saliency(frame) for frame in frames]))
        maps = maps.view(len(batch), grid.t, -1, grid.h, p, grid.w, p)
        return Ranking(maps.mean(dim=(2, 4, 6)).flatten(1))

    def _saliency(self, frame: np.ndarray) -> np.ndarray:
        """uint8 RGB (H, W, 3) -> float32 (H, W)."""
        ok, found = self._detector.computeSaliency(np.ascontiguousarray(frame[..., ::-1]))
        # A frame without any contrast has no spectrum to speak of: nothing in it stands out.
        return np.nan_to_num(found) if ok else np.zeros(frame.shape[:2], np.float32)
