"""A checkpoint opened without its weights: the same in all that is asked of it, and no values."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.backbones import load_backbone, strict
from pipeline.backbones.base import Backbone
from pipeline.errors import BackboneError
from selector.methods.cost import CostModel
from tests.checkpoints import save_timesformer, save_videomae, save_vivit, save_vjepa2


@pytest.fixture
def no_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading the values of weights is a fault."""

    def refuse(*given: object) -> None:
        raise AssertionError("the weights were read")

    monkeypatch.setattr("pipeline.backbones.huggingface.load_strictly", refuse)


def facts(backbone: Backbone) -> dict[str, object]:
    """What a driver asks of a backbone."""
    names = ("digest", "grid", "num_frames", "tubelet_size", "patch_size", "hidden_size")
    more = ("head_size", "num_classes", "label_names", "preprocessing", "prefix", "off_grid")
    return {name: getattr(backbone, name) for name in (*names, *more)} | {
        "layers": backbone.num_layers,
        "layer": backbone.resolve_layer("blocks.-1.norm1"),
        "shapes": {key: value.shape for key, value in backbone.state_dict().items()},
        "cost": CostModel(backbone).blocks(3),
        "dtype": backbone.dtype,
    }


@pytest.mark.parametrize("save", [save_videomae, save_timesformer, save_vivit, save_vjepa2])
def test_it_says_the_same_of_itself(
    save: Callable[[Path], Path], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    folder = str(save(tmp_path / "checkpoint"))
    loaded = facts(load_backbone(folder))
    request.getfixturevalue("no_values")
    described = load_backbone(folder, device="meta")
    assert all(weight.is_meta for weight in described.parameters())
    assert facts(described) == loaded


def test_keys_of_another_release_are_known(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    folder = save_videomae(tmp_path / "checkpoint")
    weights = load_file(folder / "model.safetensors")
    renamed = {
        key.replace(".q_bias", ".query.bias").replace(".v_bias", ".value.bias"): value
        for key, value in weights.items()
    }
    assert renamed.keys() != weights.keys()
    save_file(renamed, folder / "model.safetensors", {"format": "pt"})
    digest = load_backbone(str(folder)).digest
    request.getfixturevalue("no_values")
    assert load_backbone(str(folder), device="meta").digest == digest


def test_the_old_format_is_described_too(tmp_path: Path, no_values: None) -> None:
    folder = save_videomae(tmp_path / "checkpoint")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert load_backbone(str(folder), device="meta").num_layers == 3


def _drop(weights: dict[str, torch.Tensor]) -> None:
    del weights["classifier.weight"]


def _add(weights: dict[str, torch.Tensor]) -> None:
    weights["another.weight"] = torch.zeros(1)


def _reshape(weights: dict[str, torch.Tensor]) -> None:
    weights["classifier.bias"] = torch.zeros(9)


def _wrap(weights: dict[str, torch.Tensor]) -> None:
    for key in list(weights):
        weights["module." + key] = weights.pop(key)


@pytest.mark.parametrize("fault", [_drop, _add, _reshape, _wrap])
def test_a_fault_is_named_as_by_loading(
    fault: Callable[[dict[str, torch.Tensor]], None], tmp_path: Path
) -> None:
    folder = save_videomae(tmp_path / "checkpoint")
    weights = load_file(folder / "model.safetensors")
    fault(weights)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    errors = []
    for device in ("cpu", "meta"):
        with pytest.raises(BackboneError) as caught:
            load_backbone(str(folder), device=device)
        errors.append(str(caught.value))
    assert errors[0] == errors[1]


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    folder = save_videomae(tmp_path / "checkpoint")
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(BackboneError, match="cannot load"):
        load_backbone(str(folder), device="meta")


def test_what_cannot_be_described_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(save_videomae(tmp_path / "first"), tmp_path / "checkpoint"))
    monkeypatch.setattr(strict, "_read_shapes", lambda file: iter([("another", torch.Size())]))
    assert load_backbone(str(folder), device="meta").device.type == "meta"
