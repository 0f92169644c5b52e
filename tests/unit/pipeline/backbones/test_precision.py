"""What a method is shown, and what it makes of it, is in float32 at least, also under autocast."""

from __future__ import annotations

import pytest
import torch

from pipeline.backbones import load_backbone
from pipeline.backbones.precision import as_precise_as_given, in_full_precision
from pipeline.backbones.tokens import PROBABILITIES, RECEIVED, Reducer
from tests.checkpoints import save_timesformer, save_videomae, save_vivit, save_vjepa2

FAMILIES = {
    "videomae": save_videomae,
    "timesformer": save_timesformer,
    "divided": lambda folder: save_timesformer(folder, attention_type="divided_space_time"),
    "vivit": save_vivit,
    "vjepa2": save_vjepa2,
}


def product(values):
    return (values.float() @ values.float().transpose(1, 2)).dtype


class Looks(Reducer):
    """Notes in what precision it is shown attention, and in what it could compare tokens."""

    def __init__(self):
        self.seen = []

    def wants(self, layer):
        return frozenset({RECEIVED, PROBABILITIES})

    def between(self, layer, x, seen):
        self.seen += [seen.received.dtype, seen.probabilities.dtype, product(x.values)]
        return x

    def after(self, layer, x, seen):
        self.seen.append(product(x.values))
        return x


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_autocast_rounds_the_model_and_no_decision(tmp_path, family):
    backbone = load_backbone(str(FAMILIES[family](tmp_path)))
    pixels = torch.randn(2, 4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    looks = Looks()
    with torch.autocast("cpu", torch.bfloat16):
        tokens = backbone.embed(pixels)
        backbone.run(tokens, looks)
        assert product(tokens.values) == torch.bfloat16
    assert len(looks.seen) == 4 * backbone.num_layers
    assert set(looks.seen) == {torch.float32}


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_without_autocast_nothing_changes(device):
    values = torch.ones(2, 2, device=device)
    with as_precise_as_given(values):
        assert (values @ values).dtype == torch.float32


def test_double_precision_stays():
    assert in_full_precision(torch.ones(1, dtype=torch.float64)).dtype == torch.float64
    assert in_full_precision(torch.ones(1, dtype=torch.float16)).dtype == torch.float32
