"""Small LITE models with random weights."""

from __future__ import annotations

from pathlib import Path

import torch

from pipeline.backbones import Backbone, load_backbone
from selector.deploy.config import LiteConfig
from selector.deploy.model import LiteModel
from selector.training.config import SelectorConfig
from selector.training.model import TokenSelector


def make_selector(backbone: Backbone, name: str, arch: str = "mlp", seed: int = 1) -> TokenSelector:
    """A selector that fits `backbone`, with scores well apart."""
    torch.manual_seed(seed)
    config = SelectorConfig(
        arch=arch,
        num_layers=3,
        width=16,
        hidden_size=backbone.hidden_size,
        grid=backbone.grid,
        backbone=name,
        backbone_digest=backbone.digest,
        store_fingerprint="f" * 64,
        oracle="gradcam of blocks.-1.output, label",
    )
    selector = TokenSelector(config)
    selector.set_statistics(torch.zeros(24), torch.full((24,), 0.2), 0.5)
    selector.prior = torch.rand(backbone.grid.num_tokens)
    return selector.eval()


def make_model(folder: Path, config: LiteConfig | None = None) -> LiteModel:
    """A model on the checkpoint in `folder`."""
    backbone = load_backbone(str(folder))
    return LiteModel(backbone, make_selector(backbone, str(folder)), config, str(folder))


def make_pixels(num_clips: int, seed: int = 0) -> torch.Tensor:
    """Normalised clips for the tiny backbone, (B, 4, 3, 16, 16)."""
    return torch.randn(num_clips, 4, 3, 16, 16, generator=torch.Generator().manual_seed(seed))
