"""Loading a transformers model whose weights are those of its checkpoint, or not at all.

`from_pretrained` repairs in silence: what a file lacks is drawn at random, what a model lacks is
left out, and what a release renamed is converted, in some releases to zeros.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.backbones.checkpoint import no_progress_bar, weight_files
from pipeline.errors import BackboneError

_KEYS = ("missing_keys", "unexpected_keys")
Renamed = Sequence[tuple[str, str]]
"""Pattern in a file's key, and what stands there in the model's; applied one after the other."""


def load_strictly(folder: Path, architecture: str, renamed: Renamed) -> Any:
    """`from_pretrained`, refusing every silent repair it would make.

    Args:
        folder: what `save_pretrained` wrote.
        architecture: name of the class in transformers.
        renamed: by which keys of the file may differ from the model's.

    Returns:
        The model in float32, frozen, in evaluation mode, with fused attention where it has it.

    Raises:
        BackboneError: a key is missing, unexpected, of another shape, or loaded as another value
            than the file holds; names the keys and, for a pre-training checkpoint, what to do.
    """
    files = weight_files(folder)
    loader = _model_class(folder, architecture)
    try:
        with no_progress_bar():
            model, info = loader.from_pretrained(
                folder,
                output_loading_info=True,
                dtype=torch.float32,
                trust_remote_code=False,
                **_attention(loader),
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
    _check_values(model, files, renamed)
    return model.eval().requires_grad_(False)


def describe_strictly(folder: Path, architecture: str, renamed: Renamed) -> Any | None:
    """The model as `load_strictly` gives it, on PyTorch's meta device: shapes without values.

    What the weights' files name is read, and not one weight. So what only a look at values finds (a
    release that loads others than the file holds) is left to whoever loads them.

    Args:
        folder: as in `load_strictly`.
        architecture: likewise.
        renamed: likewise.

    Returns:
        None where names or shapes of the files are not exactly the model's, or cannot be read:
        whether that is a fault, and which, only `load_strictly` can say.

    Raises:
        BackboneError: the weights are not there, or transformers lacks the architecture.
    """
    files = weight_files(folder)
    loader = _model_class(folder, architecture)
    try:
        config = loader.config_class.from_pretrained(folder, **_attention(loader))
        with torch.device("meta"):
            model = loader(config).float()
        expected = {key: value.shape for key, value in model.state_dict().items()}
        stored = [
            (key if key in expected else _rename(key, renamed), shape)
            for file in files
            for key, shape in _read_shapes(file)
        ]
    except Exception:  # as in `load_strictly`, which then says what it is
        return None
    if len(stored) != len(expected) or dict(stored) != expected:
        return None
    return model.eval().requires_grad_(False)


def _model_class(folder: Path, architecture: str) -> Any:
    import transformers

    loader: Any = getattr(transformers, architecture, None)
    if loader is None:
        raise BackboneError(
            f"{folder} needs {architecture}, which transformers {transformers.__version__} does "
            "not have: install a newer release"
        )
    return loader


def _attention(loader: Any) -> dict[str, str]:
    """Options for fused attention, where a model has it."""
    return {"attn_implementation": "sdpa"} if getattr(loader, "_supports_sdpa", False) else {}


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
        return (
            "; a pre-training checkpoint must be fine-tuned for classification first: "
            "lite-pipeline train-backbone --init"
        )
    return ""


def _check_values(model: Any, files: list[Path], renamed: Renamed) -> None:
    """Compare every loaded weight with the file's, bit by bit.

    Some transformers 5.x releases renamed VideoMAE's q_bias and v_bias without converting old files
    and loaded zeros, with no key reported missing; accuracy falls without a word.
    """
    loaded = model.state_dict()
    wrong = []
    for file in files:
        for key, stored in _read(file):
            value = loaded.get(key)
            if value is None:
                value = loaded.get(_rename(key, renamed))
            if value is None or not torch.equal(value.detach(), stored.to(value.dtype)):
                wrong.append(key)
    if wrong:
        raise BackboneError(
            f"{files[0].parent}: this transformers release loaded other values than the file holds "
            f"for {_first(wrong)}; install a release that loads such checkpoints as they are"
        )


def _rename(key: str, renamed: Renamed) -> str:
    for old, new in renamed:
        key = re.sub(old, new, key)
    return key


def _read(file: Path) -> Iterator[tuple[str, Tensor]]:
    if file.suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(file, framework="pt") as tensors:
            for key in tensors.keys():  # noqa: SIM118
                yield key, tensors.get_tensor(key)
        return
    yield from torch.load(file, map_location="cpu", weights_only=True).items()


def _read_shapes(file: Path) -> Iterator[tuple[str, torch.Size]]:
    """Names and shapes in a file, of which no more is read than says so."""
    if file.suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(file, framework="pt") as tensors:
            for key in tensors.keys():  # noqa: SIM118
                yield key, torch.Size(tensors.get_slice(key).get_shape())
        return
    state = torch.load(file, map_location="meta", mmap=True, weights_only=True)
    yield from ((key, value.shape) for key, value in state.items())


def _first(keys: Iterable[object], limit: int = 3) -> str:
    names = sorted(str(key) for key in keys)
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
