"""The authors' `.pth` files, converted: the same logits, every tensor once, and no code run."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import VideoMAEForVideoClassification

from pipeline.backbones import load_backbone
from pipeline.backbones.mcg_nju import Known, _configuration, import_checkpoint
from pipeline.errors import BackboneError, ConfigError
from tests.checkpoints import save_videomae, save_vivit
from tests.original_videomae import original_logits, original_weights

TINY = Known(heads=2, frames=4, pixels=16, fresh_positions=True)
PIXELS = torch.randn(2, 4, 3, 16, 16, generator=torch.Generator().manual_seed(3))
TRAINED = argparse.Namespace(num_frames=4, input_size=16, model="vit_tiny", lr=1e-3)


def saved(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return saved(tmp_path / "model.pth", original_weights())


@torch.no_grad()
@pytest.mark.parametrize("mean_pooling", [True, False])
def test_it_answers_as_the_authors_forward_pass(tmp_path, mean_pooling):
    weights = original_weights(mean_pooling=mean_pooling)
    done = import_checkpoint(saved(tmp_path / "m.pth", {"model": weights}), tmp_path / "out", TINY)
    backbone = done.backbone.double()
    assert backbone.prefix == 1 - mean_pooling
    ours = backbone(PIXELS.double())
    # transformers fixes the last norm's epsilon: 1e-5, where the authors have 1e-6.
    same = original_logits(weights, PIXELS, 2, last_eps=1e-5)
    torch.testing.assert_close(ours, same, rtol=0, atol=1e-10)
    theirs = original_logits(weights, PIXELS, 2)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-3)
    assert theirs.std() > 0.1


TABLE = {
    "videomae.embeddings.patch_embeddings.projection": "patch_embed.proj",
    "attention.output.dense": "attn.proj",
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
    "classifier": "head",
    "fc_norm": "fc_norm",
}


def as_authors_name(model: VideoMAEForVideoClassification) -> dict[str, torch.Tensor]:
    """From a model of transformers, by a table of its own."""
    state = model.state_dict()
    weights = {}
    for number, layer in enumerate(model.videomae.encoder.layer):
        own = layer.attention.attention
        weights[f"blocks.{number}.attn.qkv.weight"] = torch.cat(
            [own.query.weight, own.key.weight, own.value.weight]
        )
        weights[f"blocks.{number}.attn.q_bias"] = own.query.bias
        weights[f"blocks.{number}.attn.v_bias"] = own.value.bias
    for key, value in state.items():
        name, _, kind = key.rpartition(".")
        if ".attention.attention." in name:
            continue
        in_block = name.removeprefix("videomae.encoder.layer.")
        number, _, rest = in_block.partition(".")
        new = TABLE[name] if name == in_block else f"blocks.{number}.{TABLE[rest]}"
        weights[f"{new}.{kind}"] = value
    return {key: value.detach() for key, value in weights.items()}


@torch.no_grad()
def test_a_known_model_comes_back(tmp_path):
    source = save_videomae(tmp_path / "source", layer_norm_eps=1e-6)
    plain = VideoMAEForVideoClassification.from_pretrained(source).eval()
    file = saved(tmp_path / "known.pth", as_authors_name(plain))
    backbone = import_checkpoint(file, tmp_path / "out", TINY).backbone
    torch.testing.assert_close(backbone(PIXELS), plain(PIXELS).logits, rtol=0, atol=1e-6)
    again = VideoMAEForVideoClassification.from_pretrained(tmp_path / "out").eval()
    for key, value in plain.state_dict().items():
        assert torch.equal(again.state_dict()[key], value), key


def prefixed(prefix: str) -> dict[str, torch.Tensor]:
    return {prefix + key: value for key, value in original_weights().items()}


@pytest.mark.parametrize(
    "content",
    [
        {"model": original_weights(), "args": TRAINED, "epoch": 3, "optimizer": {"state": {}}},
        {"module": original_weights(), "epoch": 3},
        {"state_dict": prefixed("module.")},
        prefixed("_orig_mod."),
        {"model": prefixed("module.backbone.")},
        {"model": original_weights(), "model_ema": original_weights(seed=1)},
    ],
)
def test_wrappers_are_taken_off(tmp_path, file, content):
    plain = import_checkpoint(file, tmp_path / "plain", TINY).backbone
    several = "model_ema" in content
    known = Known(**(vars(TINY) | {"entry": "model" if several else None}))
    wrapped = saved(tmp_path / "wrapped.pth", content)
    backbone = import_checkpoint(wrapped, tmp_path / "out", known).backbone
    assert backbone.digest == plain.digest


def test_several_weights_have_to_be_told_apart(tmp_path):
    content = {"model": original_weights(), "model_ema": original_weights(seed=1)}
    file = saved(tmp_path / "m.pth", content)
    with pytest.raises(ConfigError, match="model and model_ema: say which, --entry"):
        import_checkpoint(file, tmp_path / "out", TINY)
    known = Known(**(vars(TINY) | {"entry": "module"}))
    with pytest.raises(BackboneError, match="'module'; it has model, model_ema"):
        import_checkpoint(file, tmp_path / "out", known)


def without(*names: str) -> dict[str, torch.Tensor]:
    return {k: v for k, v in original_weights().items() if k not in names}


def added(**others: torch.Tensor) -> dict[str, torch.Tensor]:
    return original_weights() | {name.replace("__", "."): value for name, value in others.items()}


ONE = torch.ones(24)


@pytest.mark.parametrize(
    ("weights", "reason"),
    [
        (
            {f"encoder.{k}": v for k, v in original_weights().items()} | {"mask_token": ONE},
            r"mask_token.*pre-training and has no classifier",
        ),
        (without("head.weight", "head.bias"), r"no classifier \(head.weight\)"),
        (without("blocks.1.attn.q_bias"), r"it lacks blocks\.1\.attn\.q_bias"),
        (without("blocks.2.mlp.fc2.bias"), r"it lacks blocks\.2\.mlp\.fc2\.bias"),
        (
            added(blocks__0__attn__qkv__bias=ONE),
            r"nothing in one is called blocks\.0\.attn\.qkv\.b",
        ),
        (added(blocks__0__gamma_1=ONE), "scale their outputs"),
        (added(blocks__0__attn__scale=ONE), "attention is by cosine"),
        (added(pos_embed=ONE), "positions are learnt"),
        (added(cls_token=ONE), "CLS token"),
        (added(norm__weight=ONE, norm__bias=ONE), r"nothing in one is called norm\.bias"),
        (added(patch_embed__proj__weight=torch.ones(24, 3, 8, 8)), "model of images"),
        (added(head__bias=torch.full((5,), torch.nan)), r"head\.bias holds values that are no"),
        (
            added(blocks__1__norm1__bias=torch.ones(23)),
            r"blocks\.1\.norm1\.bias \(23,\), not \(24,\)",
        ),
        ({"videomae.encoder.layer.0.output.dense.weight": ONE}, "transformers' names already"),
        ({"conv1.weight": ONE}, r"no VideoMAE: it has no patch_embed\.proj\.weight, but conv1"),
    ],
)
def test_what_is_no_fine_tuned_videomae_is_refused(tmp_path, weights, reason):
    file = saved(tmp_path / "m.pth", {"model": weights})
    with pytest.raises(BackboneError, match=reason):
        import_checkpoint(file, tmp_path / "out", TINY)
    assert list(tmp_path.iterdir()) == [file]


class Hostile:
    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_no_code_of_a_file_runs(tmp_path):
    content = {"model": original_weights(), "extra": Hostile(tmp_path / "ran")}
    file = saved(tmp_path / "m.pth", content)
    with pytest.raises(BackboneError, match=r"wants \w+\.mkdir to be built, which may run code"):
        import_checkpoint(file, tmp_path / "out", TINY)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [[original_weights()], {}, {"epoch": 3}])
def test_files_without_weights_are_refused(tmp_path, content):
    with pytest.raises(BackboneError, match="holds a list|holds no weights"):
        import_checkpoint(saved(tmp_path / "m.pth", content), tmp_path / "out", TINY)


def test_files_that_are_none_are_refused(tmp_path):
    (tmp_path / "bad.pth").write_bytes(b"PK but no archive")
    with pytest.raises(BackboneError, match=r"cannot read .*bad\.pth"):
        import_checkpoint(tmp_path / "bad.pth", tmp_path / "out", TINY)
    with pytest.raises(BackboneError, match="is no file"):
        import_checkpoint(tmp_path, tmp_path / "out", TINY)


@torch.no_grad()
def test_the_training_says_frames_and_pixels(tmp_path):
    content = {"model": original_weights(), "args": TRAINED}
    file = saved(tmp_path / "m.pth", content)
    known = Known(heads=2, fresh_positions=True)
    done = import_checkpoint(file, tmp_path / "out", known)
    assert (done.backbone.num_frames, done.backbone.image_size) == (4, 16)
    assert done.assumed == []
    again = load_backbone(str(tmp_path / "out"))
    assert again.digest == done.backbone.digest
    assert torch.equal(again(PIXELS), done.backbone(PIXELS))
    in_segments = argparse.Namespace(**(vars(TRAINED) | {"num_frames": 2, "num_segments": 2}))
    parts = saved(tmp_path / "parts.pth", content | {"args": in_segments})
    assert import_checkpoint(parts, tmp_path / "parts", known).backbone.num_frames == 4
    with pytest.raises(ConfigError, match="frames cannot be 8 by --frames, 4 by the file"):
        import_checkpoint(file, tmp_path / "other", Known(**(vars(known) | {"frames": 8})))


def test_published_sizes_are_assumed_and_said(tmp_path):
    """VideoMAE-S but for its MLPs."""
    weights = original_weights(width=384, layers=12, inner=8, patch=16)
    half = {key: value.half() for key, value in weights.items()}
    done = import_checkpoint(saved(tmp_path / "s.pth", {"module": half}), tmp_path / "out", Known())
    assert done.assumed == ["6 heads", "16 frames", "224 pixels"]
    backbone = done.backbone
    assert (backbone.head_size, backbone.grid.num_tokens, backbone.image_size) == (64, 1568, 224)
    stored = backbone.model.videomae.encoder.layer[11].output.dense.weight
    assert torch.equal(stored, half["blocks.11.mlp.fc2.weight"].float())
    assert backbone.preprocessing.mean == pytest.approx((123.675, 116.28, 103.53))
    assert backbone.label_names is None


@pytest.mark.parametrize(
    ("width", "layers", "inner", "patch", "head_size"),
    [
        (384, 12, 1536, 16, 64),
        (768, 12, 3072, 16, 64),
        (1024, 24, 4096, 16, 64),
        (1280, 32, 5120, 16, 80),
        (1408, 40, 6144, 14, 88),
    ],
    ids=["S", "B", "L", "H", "V2-g"],
)
def test_heads_of_published_sizes_are_theirs(width, layers, inner, patch, head_size):
    with torch.device("meta"):
        shapes = {
            "patch_embed.proj.weight": torch.empty(width, 3, 2, patch, patch),
            "fc_norm.weight": torch.empty(width),
            "head.weight": torch.empty(710, width),
            **{f"blocks.{i}.mlp.fc1.weight": torch.empty(inner, width) for i in range(layers)},
        }
    fields, assumed = _configuration(Path("m.pth"), shapes, {}, Known())
    assert width / fields["num_attention_heads"] == head_size
    assert (fields["patch_size"], fields["intermediate_size"]) == (patch, inner)
    assert assumed == [f"{width // head_size} heads", "16 frames", "224 pixels"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"heads": None}, "3 blocks of 24 channels, which no published model has.*--heads N"),
        ({"heads": 5}, "5 heads do not divide 24"),
        ({"fresh_positions": False}, "4 frames of 16 pixels.*V2 stretches.*--fresh-positions"),
        ({"labels": ["a", "b"]}, "5 classes, and 2 names"),
    ],
)
def test_what_is_not_known_has_to_be_said(tmp_path, file, changes, reason):
    with pytest.raises(ConfigError, match=reason):
        import_checkpoint(file, tmp_path / "out", Known(**(vars(TINY) | changes)))


def test_another_checkpoint_says_the_rest(tmp_path, file):
    like = save_videomae(tmp_path / "like")
    known = Known(like=str(like), fresh_positions=True)
    done = import_checkpoint(file, tmp_path / "out", known)
    assert done.assumed == []
    assert done.backbone.label_names == [f"class {i}" for i in range(5)]
    other = save_videomae(tmp_path / "other", hidden_size=36, num_hidden_layers=2)
    with pytest.raises(BackboneError, match="hidden_size 36, and here 24; num_hidden_layers 2"):
        import_checkpoint(file, tmp_path / "no", Known(**(vars(known) | {"like": str(other)})))
    vivit = save_vivit(tmp_path / "vivit")
    with pytest.raises(BackboneError, match="'vivit' checkpoint, not 'videomae'"):
        import_checkpoint(file, tmp_path / "no", Known(**(vars(known) | {"like": str(vivit)})))


def test_names_are_those_given(tmp_path, file):
    known = Known(**(vars(TINY) | {"labels": list("edcba")}))
    assert import_checkpoint(file, tmp_path / "out", known).backbone.label_names == list("edcba")


def test_a_folder_with_something_in_it_stays(tmp_path, file):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match="is not an empty folder"):
        import_checkpoint(file, tmp_path / "out", TINY)
    (tmp_path / "out" / "mine.txt").unlink()
    import_checkpoint(file, tmp_path / "out", TINY)
