"""Low-rank adapters: what trains, how much of it, and what the model's file then is."""

from __future__ import annotations

import sys

import pytest
import torch

from pipeline.backbones import load_backbone
from pipeline.errors import ConfigError
from selector.adaptation.lora import LoraAdapters
from selector.adaptation.train import trained_parameters
from tests.builds import file_hashes, make_dataset
from tests.checkpoints import save_timesformer, save_vivit
from tests.unit.selector.adaptation.test_adaptation import NUM_VIDEOS, ask, run

RANK = 2


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("data"), NUM_VIDEOS)


def test_as_many_numbers_train_as_the_layers_ask_for(tiny_backbone):
    backbone = load_backbone(str(tiny_backbone))
    config = backbone.model.config
    wide, inner, classes = config.hidden_size, config.intermediate_size, config.num_labels
    block = 4 * (wide + wide) + 2 * (wide + inner)  # q, k, v, output; up and down
    adapters = LoraAdapters(backbone, trained_parameters(backbone), RANK, 0)
    trained = sum(p.numel() for p in backbone.parameters() if p.requires_grad)
    assert trained == RANK * (3 * block + wide + classes)
    assert trained == sum(p.numel() for p in adapters.parameters.values())


@pytest.mark.parametrize("family", ["videomae", "timesformer", "vivit"])
def test_every_adapter_learns_and_what_is_added_is_of_the_rank(
    family, data, tmp_path, tiny_backbone
):
    make = {"timesformer": save_timesformer, "vivit": save_vivit}.get(family)
    folder = tiny_backbone if make is None else make(tmp_path / family)
    result = run(ask(folder, lora_rank=RANK, steps=4, learning_rate=0.05), tmp_path / "m", data)
    assert result.best_step > 0
    there = load_backbone(str(folder))
    before = there.state_dict()
    after = load_backbone(str(tmp_path / "m" / "backbone")).state_dict()
    linear = {
        f"{name}.weight"
        for name, module in there.named_modules()
        if isinstance(module, torch.nn.Linear)
    }
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == linear & trained_parameters(there)
    for name in changed:
        found = torch.linalg.svdvals((after[name] - before[name]).double())
        assert found[0] > 0
        assert (found[RANK:] < 1e-4 * found[0]).all()


def test_without_a_better_step_no_byte_changes(data, tmp_path, tiny_backbone):
    result = run(ask(tiny_backbone, lora_rank=RANK, learning_rate=0.0), tmp_path / "m", data)
    assert result.best_step == 0
    copied = file_hashes(tmp_path / "m" / "backbone")
    assert copied == {name: h for name, h in file_hashes(tiny_backbone).items() if name in copied}


def test_an_adapter_that_is_passed_by_is_refused(tiny_backbone):
    backbone = load_backbone(str(tiny_backbone))
    adapters = LoraAdapters(backbone, trained_parameters(backbone), RANK, 0)
    with pytest.raises(ConfigError, match="adapters have no part in this backbone's answer"):
        adapters.check_gradients()  # nothing ran backwards


def test_without_peft_one_sentence_says_what_to_install(tiny_backbone, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    backbone = load_backbone(str(tiny_backbone))
    with pytest.raises(ConfigError, match=r"need peft: pip install 'lite-pipeline\[lora\]'"):
        LoraAdapters(backbone, trained_parameters(backbone), RANK, 0)
