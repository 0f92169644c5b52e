"""Which files a checkpoint consists of: those that transformers loads, whatever lies beside."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import VideoMAEForVideoClassification

from pipeline.backbones import backbone_digest, load_backbone
from pipeline.backbones.checkpoint import weight_files
from pipeline.errors import BackboneError
from tests.checkpoints import save_videomae

INDEX = "model.safetensors.index.json"


@pytest.fixture
def checkpoint(tiny_backbone: Path, tmp_path: Path) -> Path:
    """A private copy that a test may change."""
    return Path(shutil.copytree(tiny_backbone, tmp_path / "checkpoint"))


@pytest.fixture(scope="module")
def other(tmp_path_factory) -> Path:
    """The same architecture with other weights, in shards."""
    folder = save_videomae(tmp_path_factory.mktemp("other"), seed=9)
    model = VideoMAEForVideoClassification.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="20KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 1
    return folder


def answer(folder: Path) -> torch.Tensor:
    """The first clip's logits by transformers alone."""
    model = VideoMAEForVideoClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        return model(torch.ones(1, 4, 3, 16, 16)).logits


def leave_beside(kind: str, folder: Path, other: Path) -> None:
    if kind == "shards of another save":
        for shard in other.glob("model-*.safetensors"):
            shutil.copy(shard, folder)
    elif kind == "another save's index and shards":
        for file in [*other.glob("model-*.safetensors"), other / INDEX]:
            shutil.copy(file, folder)
    elif kind == "averaged weights":
        weights = load_file(folder / "model.safetensors")
        save_file({k: v + 1 for k, v in weights.items()}, folder / "ema.safetensors")
    elif kind == "the same in the old format":
        state = {k: v + 1 for k, v in load_file(folder / "model.safetensors").items()}
        torch.save(state, folder / "pytorch_model.bin")
    else:
        (folder / "optimizer.pt").write_bytes(b"anything")


@pytest.mark.parametrize(
    "kind",
    [
        "shards of another save",
        "another save's index and shards",
        "averaged weights",
        "the same in the old format",
        "a training's state",
    ],
)
def test_other_files_beside_change_neither_answer_nor_identity(checkpoint, other, kind):
    digest, expected = backbone_digest(str(checkpoint)), answer(checkpoint)
    leave_beside(kind, checkpoint, other)
    loaded = load_backbone(str(checkpoint))
    torch.testing.assert_close(loaded(torch.ones(1, 4, 3, 16, 16)), expected, rtol=0, atol=1e-6)
    assert loaded.digest == backbone_digest(str(checkpoint)) == digest
    torch.testing.assert_close(answer(checkpoint), expected, rtol=0, atol=0)  # so do they


def test_shards_are_those_that_the_index_lists(other, tmp_path):
    folder = Path(shutil.copytree(other, tmp_path / "sharded"))
    listed = sorted(set(json.loads((folder / INDEX).read_text())["weight_map"].values()))
    shutil.copy(folder / listed[0], folder / "model-00001-of-00009.safetensors")
    assert [file.name for file in weight_files(folder)] == listed
    loaded = load_backbone(str(folder))
    expected = answer(folder)
    torch.testing.assert_close(loaded(torch.ones(1, 4, 3, 16, 16)), expected, rtol=0, atol=1e-6)
    (folder / listed[1]).unlink()
    with pytest.raises(BackboneError, match=f"lacks {listed[1]}, which its index lists"):
        load_backbone(str(folder))


def test_the_identity_is_over_configurations_and_weights_by_name_and_content(checkpoint):
    digest = hashlib.sha256()
    for name in ("config.json", "preprocessor_config.json", "model.safetensors"):
        digest.update(name.encode())
        digest.update(hashlib.sha256((checkpoint / name).read_bytes()).digest())
    assert backbone_digest(str(checkpoint)) == digest.hexdigest()


def test_unchanged_weights_are_hashed_once_and_changed_ones_again(checkpoint, monkeypatch):
    hashed, real = [], hashlib.file_digest
    monkeypatch.setattr(
        hashlib, "file_digest", lambda file, name: hashed.append(file.name) or real(file, name)
    )
    weights = checkpoint / "model.safetensors"
    weights.write_bytes(data := weights.read_bytes())  # another file than any test has seen
    first = load_backbone(str(checkpoint), device="meta").digest
    assert load_backbone(str(checkpoint)).digest == backbone_digest(str(checkpoint)) == first
    assert hashed.count(str(weights.resolve())) == 1
    stat = weights.stat()
    weights.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))  # as long, and as old
    os.utime(weights, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert backbone_digest(str(checkpoint)) != first


def test_an_adapter_beside_is_refused_because_it_may_be_loaded_too(checkpoint):
    (checkpoint / "adapter_model.safetensors").write_bytes(b"")
    assert load_backbone(str(checkpoint)).num_classes == 5  # nobody would load that file
    (checkpoint / "adapter_config.json").write_text("{}")
    with pytest.raises(BackboneError, match="holds an adapter.*merge_and_unload"):
        load_backbone(str(checkpoint))


def test_weights_of_another_name_are_named(checkpoint):
    (checkpoint / "model.safetensors").rename(checkpoint / "best.safetensors")
    with pytest.raises(BackboneError, match="holds no weights.*it has best.safetensors"):
        load_backbone(str(checkpoint))


def test_weights_in_the_old_format_load_without_code(checkpoint, tmp_path):
    expected = answer(checkpoint)
    torch.save(load_file(checkpoint / "model.safetensors"), checkpoint / "pytorch_model.bin")
    (checkpoint / "model.safetensors").unlink()
    loaded = load_backbone(str(checkpoint))
    torch.testing.assert_close(loaded(torch.ones(1, 4, 3, 16, 16)), expected, rtol=0, atol=1e-6)

    class Harm:
        def __reduce__(self):
            return Path.touch, (tmp_path / "harm",)

    torch.save({"x": Harm()}, checkpoint / "pytorch_model.bin")
    with pytest.raises(BackboneError, match="cannot load"):
        load_backbone(str(checkpoint))
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize("index", ["[]", "{}", '{"weight_map": {}}', "no JSON", "[" * 100_000])
def test_an_index_that_lists_nothing_is_refused(checkpoint, index):
    (checkpoint / "model.safetensors").unlink()
    (checkpoint / INDEX).write_text(index)
    with pytest.raises(BackboneError, match=r"does not list|cannot read model\.safetensors\.index"):
        load_backbone(str(checkpoint))


def test_an_index_may_not_lead_out_of_its_folder(checkpoint):
    shutil.copy(checkpoint / "model.safetensors", checkpoint.parent / "elsewhere.safetensors")
    (checkpoint / "model.safetensors").unlink()
    (checkpoint / INDEX).write_text('{"weight_map": {"a": "../elsewhere.safetensors"}}')
    with pytest.raises(BackboneError, match="does not list the files of this folder"):
        load_backbone(str(checkpoint))


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "model.backbone."])
def test_the_prefix_of_a_wrapper_is_named(checkpoint, prefix):
    weights = load_file(checkpoint / "model.safetensors")
    save_file({prefix + k: v for k, v in weights.items()}, checkpoint / "model.safetensors",
              metadata={"format": "pt"})  # fmt: skip
    with pytest.raises(BackboneError, match=f"prefix '{prefix}'") as raised:
        load_backbone(str(checkpoint))
    assert "pre-training" not in str(raised.value)


def test_a_file_is_no_checkpoint(checkpoint):
    with pytest.raises(
        BackboneError, match="is a file; give the folder that save_pretrained wr"
    ) as raised:
        load_backbone(str(checkpoint / "model.safetensors"))
    assert "import-checkpoint" not in str(raised.value)
    (checkpoint / "model.safetensors").rename(checkpoint / "best.pth")
    with pytest.raises(BackboneError, match=r"best\.pth is a file; .*lite-pipeline import-check"):
        load_backbone(str(checkpoint / "best.pth"))


@pytest.mark.parametrize(
    ("sizes", "fault"),
    [
        ({"num_channels": 1}, "num_channels is 1, and videos have 3"),
        ({"image_size": 18}, "image_size 18 is no multiple of patch_size 8"),
        ({"num_frames": 5}, "num_frames 5 is no multiple of tubelet_size 2"),
    ],
)
def test_shapes_that_no_clip_has_are_refused_at_loading(tmp_path, sizes, fault):
    with pytest.raises(BackboneError, match=fault):
        load_backbone(str(save_videomae(tmp_path, **sizes)))
