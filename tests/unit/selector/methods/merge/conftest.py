"""The model and clips that the reference numbers were computed on, in float64."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.backbones import load_backbone
from pipeline.backbones.tokens import Reducer, Tokens


@pytest.fixture
def run_reference(peers_dir: Path) -> Callable[[Reducer], tuple[Tokens, torch.Tensor]]:
    """What a reducer leaves of the reference clips, and the float64 logits."""
    backbone = load_backbone(str(peers_dir / "common" / "videomae_tiny")).double()
    pixels = torch.from_numpy(np.load(peers_dir / "common" / "clips.npz")["pixel_values"])

    def run(reducer: Reducer) -> tuple[Tokens, torch.Tensor]:
        with torch.no_grad():
            left = backbone.encode(backbone.embed(pixels.double()).tracked(), reducer)
            return left, backbone.head(left)

    return run
