"""Logits of whole clips and of subsets, as the models' own code gives them (see `peers_dir`)."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline.backbones import load_backbone
from pipeline.backbones.tokens import Reduction, reduce

# TimeSformer was given every second frame.
FAMILIES = {"timesformer_joint": 2, "timesformer_divided": 2, "vivit": 1, "vjepa2": 1}


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_whole_clips_and_subsets_equal_the_reference(peers_dir, family):
    backbone = load_backbone(str(peers_dir / "backbones" / family)).double()
    clips = np.load(peers_dir / "common" / "clips.npz")
    pixels = torch.from_numpy(clips["pixel_values"])[:, :: FAMILIES[family]]
    ours = backbone.pixel_values(clips["clips"][:2, :: FAMILIES[family]])
    torch.testing.assert_close(ours.float(), pixels, rtol=0, atol=2e-6)
    known = np.load(peers_dir / "backbones" / f"{family}_outputs.npz")
    tokens = backbone.embed(pixels.double())
    near = {"rtol": 0, "atol": 1e-9}
    torch.testing.assert_close(backbone.run(tokens), torch.from_numpy(known["logits_full"]), **near)
    subsets = [name.removeprefix("keep_") for name in known.files if name.startswith("keep_")]
    assert len(subsets) >= 4
    for subset in subsets:
        keep = torch.from_numpy(known[f"keep_{subset}"].astype(np.int64)) + backbone.off_grid
        first = torch.arange(backbone.off_grid).expand(len(keep), -1)
        some = reduce(tokens, Reduction(torch.cat([first, keep], dim=1)))
        expected = torch.from_numpy(known[f"logits_{subset}"])
        torch.testing.assert_close(backbone.run(some), expected, **near, msg=subset)
