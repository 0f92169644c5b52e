"""Finding a checkpoint, naming its identity, and reading what its processor does.

A checkpoint is a local folder, a hub id (fetched once into Hugging Face's cache), or `synthetic`,
the small one shipped with this package.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from pipeline.backbones.base import Preprocessing
from pipeline.errors import BackboneError

SHIPPED = Path(__file__).parent / "checkpoints"
_WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
_BILINEAR = 2  # PIL's number, as processor configurations store it


def find_checkpoint(name_or_path: str, revision: str | None = None) -> Path:
    """Return the local folder of a checkpoint, downloading a hub id if need be.

    Raises:
        BackboneError: neither a folder with a `config.json`, nor shipped, nor reachable on the hub.
    """
    return _find(name_or_path, revision, ["*.json", *_WEIGHTS])


def find_config(name_or_path: str, revision: str | None = None) -> Path:
    """`find_checkpoint` for its `config.json` alone: no weights are downloaded."""
    return _find(name_or_path, revision, ["config.json"])


def _find(name_or_path: str, revision: str | None, needed: list[str]) -> Path:
    if (SHIPPED / name_or_path / "config.json").is_file():
        return SHIPPED / name_or_path
    folder = Path(name_or_path).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise BackboneError(
                f"{folder} holds no config.json: give the folder that save_pretrained wrote"
            )
        return folder
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name_or_path, revision=revision, allow_patterns=needed))
    except Exception as error:  # the hub client raises a dozen unrelated types
        raise BackboneError(
            f"backbone {name_or_path!r} is neither a folder here nor a checkpoint on the hub "
            f"(revision {revision or 'main'}): {type(error).__name__}: {error}"
        ) from error


def weight_files(folder: Path) -> list[Path]:
    """The weight files of a checkpoint; safetensors are preferred, as Hugging Face does.

    Raises:
        BackboneError: there are none.
    """
    for pattern in _WEIGHTS:
        if files := sorted(folder.glob(pattern)):
            return files
    raise BackboneError(f"{folder} holds no weights ({' or '.join(_WEIGHTS)})")


def checkpoint_digest(folder: Path) -> str:
    """Hex SHA-256 over weights, model and processor configuration: the checkpoint's identity."""
    digest = hashlib.sha256()
    configs = [p for p in sorted(folder.glob("*.json")) if p.name in _IDENTITY]
    for path in [*configs, *weight_files(folder)]:
        digest.update(path.name.encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


_IDENTITY = {"config.json", "preprocessor_config.json", "video_preprocessor_config.json"}


def read_config(folder: Path) -> dict[str, Any]:
    """The checkpoint's `config.json`.

    Raises:
        BackboneError: it is not JSON.
    """
    try:
        return dict(json.loads((folder / "config.json").read_text()))
    except (OSError, ValueError) as error:
        raise BackboneError(f"cannot read {folder / 'config.json'}: {error}") from error


def read_preprocessing(folder: Path, image_size: int) -> Preprocessing:
    """Read mean, scale and sizes from the checkpoint's own processor configuration.

    Raises:
        BackboneError: there is none, or it asks for steps that this pipeline does not reproduce
            exactly (another interpolation, no resize, a crop that is not the model's input).
    """
    path = folder / "preprocessor_config.json"
    if not path.is_file():
        raise BackboneError(
            f"{folder} holds no preprocessor_config.json: save the checkpoint's image processor "
            "beside the weights (VideoMAEImageProcessor(...).save_pretrained(folder))"
        )
    from transformers import VideoMAEImageProcessor

    processor = VideoMAEImageProcessor.from_pretrained(folder)
    size, crop = dict(processor.size), dict(processor.crop_size)
    short_side = size.get("shortest_edge") or 0
    wanted = {
        "do_resize": (processor.do_resize, True),
        "do_center_crop": (processor.do_center_crop, True),
        "do_rescale": (processor.do_rescale, True),
        "do_normalize": (processor.do_normalize, True),
        "resample": (int(processor.resample), _BILINEAR),
        "crop_size": ((crop.get("height"), crop.get("width")), (image_size, image_size)),
    }
    wrong = [f"{k} is {have!r}, not {need!r}" for k, (have, need) in wanted.items() if have != need]
    if short_side < image_size:
        wrong.append(f"size is {size!r}, not {{'shortest_edge': at least {image_size}}}")
    if wrong:
        raise BackboneError(f"{path} asks for steps not reproduced here: {'; '.join(wrong)}")
    scale = 1.0 / processor.rescale_factor
    return Preprocessing(
        short_side=short_side,
        crop_size=image_size,
        mean=_per_channel(processor.image_mean, scale),
        std=_per_channel(processor.image_std, scale),
    )


def _per_channel(values: list[float] | float, scale: float) -> tuple[float, float, float]:
    if isinstance(values, float):
        values = [values] * 3
    red, green, blue = (v * scale for v in values)
    return red, green, blue
