"""VideoMAE (Tong et al., 2022) through Hugging Face transformers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.backbones.base import Backbone, Block
from pipeline.backbones.checkpoint import checkpoint_digest, no_progress_bar, weight_files
from pipeline.backbones.preprocessing import read_preprocessing
from pipeline.backbones.tokens import (
    Evidence,
    Tokens,
    Wanted,
    attention_evidence,
    grid_tokens,
)
from pipeline.clips.grid import TokenGrid
from pipeline.errors import BackboneError

_QV_BIAS = re.compile(r"(?P<attention>.*layer\.(\d+)\.attention\.attention)\.(?P<name>[a-z_.]+)$")
_KEYS = ("missing_keys", "unexpected_keys")
# Old checkpoints call the biases of query and value q_bias and v_bias.
_MODULE_OF = {"q_bias": "query", "query.bias": "query", "v_bias": "value", "value.bias": "value"}


@dataclass(frozen=True)
class VideoMAEBlock:
    """A `VideoMAELayer`, whole or in halves; both give the same bits."""

    layer: Any

    def __call__(self, x: Tokens) -> Tokens:
        """The layer as Hugging Face runs it."""
        return replace(x, values=self.layer(x.values))

    def attend(self, x: Tokens, want: Wanted, *, by_size: bool = False) -> tuple[Tokens, Evidence]:
        """See `Block.attend`."""
        attention = self.layer.attention.attention
        normed = self.layer.layernorm_before(x.values)
        query, key, value = (
            project(normed).unflatten(-1, (attention.num_attention_heads, -1)).transpose(1, 2)
            for project in (attention.query, attention.key, attention.value)
        )
        bias = None
        if by_size and x.size is not None:
            bias = x.size.log().to(query.dtype)[:, None, None, :]
        context = F.scaled_dot_product_attention(
            query, key, value, attn_mask=bias, scale=attention.scaling
        )
        update = self.layer.attention.output.dense(context.transpose(1, 2).flatten(2))
        seen = attention_evidence(query, key, attention.scaling, want)
        return replace(x, values=update + x.values), seen

    def mlp(self, x: Tokens) -> Tokens:
        """See `Block.mlp`."""
        hidden = self.layer.intermediate(self.layer.layernorm_after(x.values))
        return replace(x, values=self.layer.output(hidden, x.values))


class VideoMAEBackbone(Backbone):
    """A fine-tuned `VideoMAEForVideoClassification`, frozen and in evaluation mode.

    It classifies from the mean of its tokens, or (`use_mean_pooling` false, what fine-tuning the
    pre-trained release inherits) from its first one, which is a token of the grid like any other
    and is then always kept.
    """

    def __init__(self, folder: Path, device: str, dtype: torch.dtype) -> None:
        """Load a checkpoint strictly.

        Raises:
            BackboneError: a key is missing, unexpected, of another shape or silently zeroed.
        """
        super().__init__()
        self.model: Any = load_strictly(folder)
        config = self.model.config
        self.num_frames = config.num_frames
        self.tubelet_size = config.tubelet_size
        self.patch_size = config.patch_size
        side = config.image_size // config.patch_size
        self.grid = TokenGrid(config.num_frames // config.tubelet_size, side, side)
        self.hidden_size = config.hidden_size
        self.head_size = config.hidden_size // config.num_attention_heads
        self.num_classes = config.num_labels
        names = [config.id2label[i] for i in range(config.num_labels)]
        # Hugging Face invents LABEL_0 ... where nobody named the classes.
        generic = all(name == f"LABEL_{i}" for i, name in enumerate(names))
        self.label_names = None if generic else names
        self.preprocessing = read_preprocessing(folder, config.image_size)
        self.digest = checkpoint_digest(folder)
        self.prefix = 0 if config.use_mean_pooling else 1
        self.eval().to(device=device, dtype=dtype)

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        # Hugging Face keeps the position table as a plain attribute, which `.to` passes over: every
        # call would copy it to the device anew.
        embeddings = self.model.videomae.embeddings
        embeddings.position_embeddings = fn(embeddings.position_embeddings)
        return super()._apply(fn, recurse)

    @property
    def blocks(self) -> Sequence[Block]:
        """The encoder's layers."""
        return [VideoMAEBlock(layer) for layer in self.model.videomae.encoder.layer]

    def embed(self, pixel_values: Tensor) -> Tokens:
        """Tubelet embedding plus the fixed sinusoid positions."""
        return grid_tokens(self.model.videomae.embeddings(pixel_values, None), prefix=self.prefix)

    def head(self, x: Tokens) -> Tensor:
        """`classifier(fc_norm(mean over tokens))`, or `classifier(layernorm(first token))`."""
        if self.prefix:
            pooled = self.model.videomae.layernorm(x.values[:, 0])
        else:
            pooled = self.model.fc_norm(x.values.mean(1))
        return self.model.classifier(pooled).float()

    def block_part(self, index: int, part: str) -> nn.Module:
        """`mlp` is fc2's output before the residual, `norm1` the first layer norm."""
        block: Any = self.model.videomae.encoder.layer[index]
        parts = {"mlp": block.output.dense, "output": block, "norm1": block.layernorm_before}
        return parts[part]


def load_strictly(folder: Path) -> Any:
    """`from_pretrained`, refusing every silent repair it would make.

    Raises:
        BackboneError: names the keys and, for a pre-training checkpoint, what to do.
    """
    from transformers import VideoMAEForVideoClassification

    files = weight_files(folder)
    loader: Any = VideoMAEForVideoClassification  # its stubs do not know output_loading_info
    try:
        with no_progress_bar():
            model, info = loader.from_pretrained(
                folder,
                output_loading_info=True,
                attn_implementation="sdpa",
                dtype=torch.float32,
                trust_remote_code=False,
            )
    except Exception as error:  # a damaged file may raise anything in one of three parsers
        raise BackboneError(f"cannot load {folder}: {type(error).__name__}: {error}") from error
    faults = [
        f"{kind.replace('_', ' ')}: {_first(info[kind])}"
        for kind in (*_KEYS, "mismatched_keys", "error_msgs")
        if info.get(kind)
    ]
    if faults:
        hint = _advice(*([str(key) for key in info[kind]] for kind in _KEYS))
        raise BackboneError(f"{folder} does not load faithfully: {'; '.join(faults)}{hint}")
    _check_biases(model, files)
    _check_sizes(model.config, folder)
    return model.eval().requires_grad_(False)


def _advice(missing: list[str], unexpected: list[str]) -> str:
    """What to do about keys that do not match."""
    prefixes = {
        key.removesuffix(name) for key in unexpected for name in missing if key.endswith("." + name)
    }
    if prefixes:
        return (
            f"; the keys carry the prefix {min(prefixes, key=len)!r} of a wrapper: save the model "
            "inside it (torch.compile: model._orig_mod; DataParallel: model.module)"
        )
    if any("classifier" in key for key in missing):
        return "; a pre-training checkpoint must be fine-tuned for classification first"
    return ""


def _check_sizes(config: Any, folder: Path) -> None:
    """Refuse shapes that a clip of whole tubelets and patches in three colours does not have."""
    wrong = []
    if config.num_channels != 3:
        wrong.append(f"num_channels is {config.num_channels}, and videos have 3")
    sizes = {name: getattr(config, name) for name in ("image_size", "patch_size")}
    wrong += [f"{k} is {v!r}, not one number" for k, v in sizes.items() if not isinstance(v, int)]
    if not wrong and config.image_size % config.patch_size:
        wrong.append(
            f"image_size {config.image_size} is no multiple of patch_size {config.patch_size}"
        )
    if config.num_frames % config.tubelet_size:
        wrong.append(
            f"num_frames {config.num_frames} is no multiple of tubelet_size {config.tubelet_size}"
        )
    if wrong:
        raise BackboneError(f"{folder} cannot be used here: {'; '.join(wrong)}")


def _check_biases(model: Any, files: list[Path]) -> None:
    """Compare the loaded query and value biases with the file's.

    Some transformers 5.x releases renamed q_bias/v_bias without converting old files and loaded
    zeros, with no key reported missing; accuracy falls without a word.
    """
    wrong = []
    for file in files:
        for key, stored in _read_biases(file):
            match = _QV_BIAS.match(key)
            assert match is not None
            attention = model.get_submodule(match["attention"])
            module = _MODULE_OF[match["name"]]
            loaded = getattr(attention, match["name"], None)  # older releases keep q_bias itself
            if loaded is None:
                loaded = getattr(attention, module).bias
            if loaded is None or not torch.equal(loaded.detach(), stored.float()):
                wrong.append(key)
    if wrong:
        raise BackboneError(
            f"{files[0].parent}: this transformers release loaded other values than the file holds "
            f"for {_first(wrong)}; install a release that converts VideoMAE's q_bias and v_bias"
        )


def _read_biases(file: Path) -> list[tuple[str, Tensor]]:
    def wanted(key: str) -> bool:
        match = _QV_BIAS.match(key)
        return match is not None and match["name"] in _MODULE_OF

    if file.suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(file, framework="pt") as tensors:
            return [(key, tensors.get_tensor(key)) for key in tensors.keys() if wanted(key)]  # noqa: SIM118
    state = torch.load(file, map_location="cpu", weights_only=True)
    return [(key, value) for key, value in state.items() if wanted(key)]


def _first(keys: Iterable[object], limit: int = 3) -> str:
    names = sorted(str(key) for key in keys)
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
