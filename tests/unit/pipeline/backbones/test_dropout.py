"""In training, blocks in halves leave out as much as the model's own code does."""

from __future__ import annotations

import pytest
import torch

from pipeline.backbones import load_backbone
from tests.checkpoints import save_timesformer, save_videomae, save_vivit, save_vjepa2
from tests.conformance.backbones import Opened

# All of it, which is no matter of chance.
ALL_ATTENTION = {"attention_probs_dropout_prob": 1.0}
ALL_UPDATES = {"hidden_dropout_prob": 1.0}
DIVIDED = {"attention_type": "divided_space_time"}


@pytest.mark.parametrize(
    ("save", "fields"),
    [
        (save_videomae, ALL_ATTENTION),
        (save_videomae, ALL_UPDATES),
        (save_vivit, ALL_ATTENTION),
        (save_vivit, ALL_UPDATES),
        (save_timesformer, ALL_ATTENTION),
        (save_timesformer, DIVIDED | ALL_ATTENTION),
        (save_vjepa2, ALL_ATTENTION),
    ],
)
@torch.no_grad()
def test_dropout_is_the_models_own(tmp_path, save, fields):
    backbone = load_backbone(str(save(tmp_path, **fields)))
    pixels = torch.randn(2, 4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    judged = backbone(pixels)
    backbone.train()
    found = backbone.run(backbone.embed(pixels), Opened())
    torch.testing.assert_close(found, backbone.model(pixels).logits)
    assert not torch.allclose(found, judged)
