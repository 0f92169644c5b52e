"""VideoMAE's and VideoMAE V2's own `.pth` files, as checkpoints of Hugging Face's VideoMAE.

Both releases share one architecture (Tong et al., 2022; Wang et al., 2023). Their files hold
tensors alone, so what no tensor shows (heads, frames, pixels) is taken from the training's
arguments where the file has them, from another configuration, or from the published sizes.

Axes: D channels, L blocks.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.backbones import Backbone, load_backbone
from pipeline.backbones.checkpoint import find_config, read_config
from pipeline.backbones.pth import read_pth
from pipeline.errors import BackboneError, ConfigError

_HEADS = {(384, 12): 6, (768, 12): 12, (1024, 24): 16, (1280, 32): 16, (1408, 40): 16}
"""Channels and blocks -> attention heads, of S, B, L, H and (V2) g."""
_FRAMES, _PIXELS = 16, 224
_EPS = 1e-6
_PATCHES = "patch_embed.proj.weight"
_OUTSIDE = {
    "patch_embed.proj": "videomae.embeddings.patch_embeddings.projection",
    "fc_norm": "fc_norm",
    "norm": "videomae.layernorm",
    "head": "classifier",
}
_IN_A_BLOCK = {
    "norm1": "layernorm_before",
    "attn.proj": "attention.output.dense",
    "norm2": "layernorm_after",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}


@dataclass(frozen=True)
class Known:
    """What the user says of a file, beyond what is in it; None where nothing is said.

    Attributes:
        entry: which of several weights in the file.
        like: a checkpoint (folder or hub id) of the same configuration.
        heads: attention heads.
        frames: of a clip.
        pixels: side of the input.
        labels: class names in the order of the logits.
        fresh_positions: positions of other sizes than 16 frames of 224 pixels were computed anew
            (VideoMAE), not stretched (VideoMAE V2).
    """

    entry: str | None = None
    like: str | None = None
    heads: int | None = None
    frames: int | None = None
    pixels: int | None = None
    labels: Sequence[str] | None = None
    fresh_positions: bool = False


@dataclass(frozen=True)
class Imported:
    """A converted checkpoint.

    Attributes:
        backbone: loaded from what was written.
        assumed: what neither the file nor the user said, "16 frames" ...
    """

    backbone: Backbone
    assumed: list[str]


def import_checkpoint(file: Path, out: Path, known: Known) -> Imported:
    """Convert a fine-tuned `.pth` file into a folder that `load_backbone` takes.

    Every tensor of the file is used once, and the folder is loaded back strictly before it gets
    its name.

    Args:
        file: what the training code of either release saves; read without running code.
        out: made here.
        known: what the file does not tell.

    Raises:
        BackboneError: the file is no fine-tuned VideoMAE, or what is known contradicts it.
        ConfigError: `out` is there already, or a size has to be given.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out} is not an empty folder; name a new one")
    found = read_pth(file, known.entry, _PATCHES)
    _refuse_others(file, found.weights)
    config, assumed = _configuration(file, found.weights, found.arguments, known)
    _check_shapes(file, found.weights, _shapes(config, len(found.weights["head.weight"])))
    converted = _converted(found.weights)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as there:
        folder = Path(there) / "checkpoint"
        _write(folder, config, converted)
        backbone = load_backbone(str(folder))
        if out.is_dir():
            out.rmdir()
        shutil.move(folder, out)
    return Imported(backbone, assumed)


def _refuse_others(file: Path, weights: Mapping[str, Tensor]) -> None:
    """Refuse what is no fine-tuned VideoMAE, by what gives it away."""
    signs = {
        r"(videomae|timesformer|vivit|vjepa2)\.": "it has transformers' names already: save the "
        "model by save_pretrained and give that folder as --backbone",
        r"(decoder|encoder_to_decoder|mask_token|encoder)\b": "it is of pre-training and has no "
        "classifier: fine-tune it first, or take the fine-tuned file",
        r"blocks\.\d+\.gamma_[12]": "its blocks scale their outputs (init_values above 0), which "
        "transformers' VideoMAE cannot",
        r"blocks\.\d+\.attn\.(scale|logit_scale)": "its attention is by cosine (cos_attn), which "
        "transformers' VideoMAE cannot",
        r"pos_embed": "its positions are learnt, and transformers' VideoMAE has fixed ones",
        r"cls_token": "it has a CLS token, which no VideoMAE has",
    }
    for sign, reason in signs.items():
        if key := next((key for key in weights if re.match(sign, key)), None):
            raise BackboneError(f"{file} cannot be converted ({key}): {reason}")
    patches = weights.get(_PATCHES)
    if patches is None:
        raise BackboneError(
            f"{file} is no VideoMAE: it has no {_PATCHES}, but {', '.join(list(weights)[:3])}"
        )
    if patches.ndim != 5:
        raise BackboneError(f"{file} is a model of images: its {_PATCHES} has no axis of time")
    if "head.weight" not in weights:
        raise BackboneError(
            f"{file} has no classifier (head.weight): take the file that was fine-tuned"
        )
    for key, value in weights.items():
        if not value.dtype.is_floating_point or not value.isfinite().all():
            raise BackboneError(f"{file}: {key} holds values that are no finite numbers")


def _configuration(
    file: Path, weights: Mapping[str, Tensor], trained: Mapping[str, Any], known: Known
) -> tuple[dict[str, Any], list[str]]:
    """Fields of a `VideoMAEConfig`, and those that were assumed."""
    width, channels, tubelet, *patch = weights[_PATCHES].shape
    layers = len({key.split(".")[1] for key in weights if key.startswith("blocks.")})
    fields: dict[str, Any] = {
        "num_channels": channels,
        "tubelet_size": tubelet,
        "patch_size": patch[0] if patch[0] == patch[1] else patch,
        "hidden_size": width,
        "num_hidden_layers": layers,
        "intermediate_size": len(weights.get("blocks.0.mlp.fc1.weight", ())),
        "use_mean_pooling": "fc_norm.weight" in weights,
    }
    like = _like(known.like)
    wrong = [f"{k} {like[k]!r}, and here {v!r}" for k, v in fields.items() if like.get(k, v) != v]
    if wrong:
        raise BackboneError(f"{file} is not like {known.like}, which has {'; '.join(wrong)}")
    said: dict[str, dict[str, Any]] = {
        "heads": {"--heads": known.heads, "--like": like.get("num_attention_heads")},
        "frames": {"--frames": known.frames, "--like": like.get("num_frames")},
        "pixels": {"--pixels": known.pixels, "--like": like.get("image_size")},
    }
    segments = trained.get("num_segments", 1)  # of frames each
    said["frames"]["the file"] = (
        trained["num_frames"] * segments if "num_frames" in trained else None
    )
    said["pixels"]["the file"] = trained.get("input_size")
    published = {"heads": _HEADS.get((width, layers)), "frames": _FRAMES, "pixels": _PIXELS}
    settled = {what: _settled(file, what, values) for what, values in said.items()}
    assumed = [f"{published[what]} {what}" for what, value in settled.items() if value is None]
    heads, frames, pixels = (settled[what] or published[what] for what in said)
    if heads is None:
        raise ConfigError(
            f"{file} has {layers} blocks of {width} channels, which no published model has: give "
            "its attention heads, --heads N, or a checkpoint of the same sizes, --like NAME"
        )
    if width % heads:
        raise ConfigError(f"{file}: {heads} heads do not divide {width} channels")
    if (frames, pixels) != (_FRAMES, _PIXELS) and not known.fresh_positions:
        raise ConfigError(
            f"{file}: for {frames} frames of {pixels} pixels VideoMAE computes positions anew, and "
            f"VideoMAE V2 stretches those of {_FRAMES} frames of {_PIXELS}, which transformers' "
            "VideoMAE cannot. If this is a VideoMAE, not a V2, add --fresh-positions"
        )
    fields |= {"num_attention_heads": heads, "num_frames": frames, "image_size": pixels}
    fields |= {"layer_norm_eps": _EPS, "id2label": _names(file, weights, like, known.labels)}
    fields["label2id"] = {name: number for number, name in fields["id2label"].items()}
    return fields, assumed


def _settled(file: Path, what: str, said: Mapping[str, Any]) -> int | None:
    """The one number that all who say something say; None where nobody does."""
    values = {who: value for who, value in said.items() if isinstance(value, int)}
    if len(set(values.values())) > 1:
        each = ", ".join(f"{value} by {who}" for who, value in values.items())
        raise ConfigError(f"{file}: its {what} cannot be {each} at once")
    return next(iter(values.values()), None)


def _names(
    file: Path, weights: Mapping[str, Tensor], like: dict[str, Any], labels: Sequence[str] | None
) -> dict[int, str]:
    classes = len(weights["head.weight"])
    if labels is None and len(like.get("id2label", ())) == classes:
        labels = [like["id2label"][str(number)] for number in range(classes)]
    if labels is not None and len(labels) != classes:
        raise ConfigError(f"{file} has {classes} classes, and {len(labels)} names are given")
    # As transformers calls what nobody named.
    return dict(enumerate(labels or (f"LABEL_{number}" for number in range(classes))))


def _like(name: str | None) -> dict[str, Any]:
    if name is None:
        return {}
    config = read_config(find_config(name))
    if config.get("model_type") != "videomae":
        raise BackboneError(f"{name} is a {config.get('model_type')!r} checkpoint, not 'videomae'")
    return config


def _shapes(config: Mapping[str, Any], classes: int) -> dict[str, tuple[int, ...]]:
    """Every tensor of a fine-tuned model."""
    d, inner = config["hidden_size"], config["intermediate_size"]
    patch = config["patch_size"]
    cut = (config["tubelet_size"], *(patch if isinstance(patch, list) else (patch, patch)))
    last = "fc_norm" if config["use_mean_pooling"] else "norm"
    matrices: dict[str, tuple[int, ...]] = {
        "patch_embed.proj": (d, config["num_channels"], *cut),
        last: (d,),
        "head": (classes, d),
    }
    vectors: dict[str, tuple[int, ...]] = {}
    for layer in range(config["num_hidden_layers"]):
        block = f"blocks.{layer}."
        matrices |= {block + "norm1": (d,), block + "norm2": (d,), block + "attn.proj": (d, d)}
        matrices |= {block + "mlp.fc1": (inner, d), block + "mlp.fc2": (d, inner)}
        # There is no bias of the keys: it would add the same to all logits of a query.
        vectors |= {block + "attn.q_bias": (d,), block + "attn.v_bias": (d,)}
        vectors[block + "attn.qkv.weight"] = (3 * d, d)
    weights = {f"{name}.weight": shape for name, shape in matrices.items()}
    return weights | {f"{name}.bias": shape[:1] for name, shape in matrices.items()} | vectors


def _check_shapes(
    file: Path, weights: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]
) -> None:
    faults = {
        "it lacks": sorted(shapes.keys() - weights.keys()),
        "nothing in one is called": sorted(weights.keys() - shapes.keys()),
        "of another shape is": [
            f"{key} {tuple(weights[key].shape)}, not {shape}"
            for key, shape in shapes.items()
            if key in weights and weights[key].shape != shape
        ],
    }
    said = [f"{what} {', '.join(keys[:3])}" for what, keys in faults.items() if keys]
    if said:
        raise BackboneError(f"{file} is not quite a VideoMAE: {'; '.join(said)}")


def _converted(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a checked model under transformers' names."""
    found: dict[str, Tensor] = {}
    for key, value in weights.items():
        name, _, kind = key.rpartition(".")
        in_block = re.fullmatch(r"blocks\.(\d+)\.(.+)", name)
        number, inside = in_block.groups() if in_block else ("", "")
        block = f"videomae.encoder.layer.{number}."
        if inside == "attn" and kind in ("q_bias", "v_bias"):
            found[f"{block}attention.attention.{kind}"] = value
        elif inside == "attn.qkv":
            for part, own in zip(value.chunk(3), ("query", "key", "value"), strict=True):
                found[f"{block}attention.attention.{own}.weight"] = part
        elif inside:
            found[f"{block}{_IN_A_BLOCK[inside]}.{kind}"] = value
        else:
            found[f"{_OUTSIDE[name]}.{kind}"] = value
    return {key: value.to(torch.float32).contiguous() for key, value in found.items()}


def _write(folder: Path, config: dict[str, Any], weights: dict[str, Tensor]) -> None:
    from safetensors.torch import save_file
    from transformers import VideoMAEConfig, VideoMAEImageProcessor

    settings = VideoMAEConfig(**config)
    settings.architectures = ["VideoMAEForVideoClassification"]
    settings.save_pretrained(folder)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    side = config["image_size"]
    VideoMAEImageProcessor(
        size={"shortest_edge": side},
        crop_size={"height": side, "width": side},
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
    ).save_pretrained(folder)
