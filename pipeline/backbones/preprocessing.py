"""Reading what a checkpoint's processor does, and refusing what is not reproduced here exactly."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from pipeline.backbones.base import Preprocessing
from pipeline.errors import BackboneError

IMAGE_PROCESSOR_NAME = "preprocessor_config.json"
PROCESSOR_NAMES = (IMAGE_PROCESSOR_NAME, "video_preprocessor_config.json")
"""What transformers' image processors and, in newer releases, its video processors write."""

_TYPES = ("image_processor_type", "feature_extractor_type", "video_processor_type")
_PROCESSORS = {
    "VideoMAE": "VideoMAEImageProcessor",
    "Vivit": "VivitImageProcessor",
    "VJEPA2": "VJEPA2VideoProcessor",
}
"""Start of a processor's name -> the class that reads its file."""
_BILINEAR = 2  # PIL's number, as processor configurations store it


def read_preprocessing(folder: Path, image_size: int) -> Preprocessing:
    """Read mean, scale and sizes from the checkpoint's own processor configuration.

    Args:
        folder: of the checkpoint; an image processor's file, a video processor's, or both.
        image_size: side of the model's input, in pixels.

    Raises:
        BackboneError: there is none, two that disagree, or one that asks for steps that this
            pipeline does not reproduce exactly (another interpolation, no resize, a crop that is
            not the model's input).
    """
    paths = [folder / name for name in PROCESSOR_NAMES if (folder / name).is_file()]
    if not paths:
        raise BackboneError(
            f"{folder} holds no {' or '.join(PROCESSOR_NAMES)}: save the checkpoint's processor "
            "beside the weights (VideoMAEImageProcessor(...).save_pretrained(folder))"
        )
    first, *others = (_read(path, image_size) for path in paths)
    if any(other != first for other in others):
        raise BackboneError(
            f"the two processors in {folder} disagree ({' and '.join(PROCESSOR_NAMES)}): remove "
            "the one that the checkpoint was not trained with"
        )
    return first


def _read(path: Path, image_size: int) -> Preprocessing:
    try:
        values: dict[str, Any] = json.loads(path.read_bytes())
        names = [str(values[key]) for key in _TYPES if key in values]
        name = names[0] if names else "VideoMAEImageProcessor"
        family = next((each for each in _PROCESSORS if name.startswith(each)), None)
        if family is None:
            raise ValueError(f"it was written by {name}, whose steps may be others")
        return _checked(_as_read(family, values), image_size, _offset(name, values))
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise BackboneError(
            f"{path} asks for steps not reproduced here: {error}. Save the processor that the "
            "checkpoint was trained with (VideoMAEImageProcessor(...).save_pretrained(folder))"
        ) from error


def _as_read(family: str, values: dict[str, Any]) -> Any:
    """The processor that transformers makes of a file, with its defaults."""
    import transformers

    # The image and the video processor of a family write the same fields and have the same
    # defaults; older releases of transformers lack one of them.
    found: Any = getattr(transformers, _PROCESSORS[family], None)
    if found is None:
        raise ValueError(
            f"transformers {transformers.__version__} has no {_PROCESSORS[family]}: install a "
            "newer release"
        )
    return found.from_dict(values)


def _offset(name: str, values: dict[str, Any]) -> float:
    """What is added after rescaling: ViViT's subtract 1 before they normalise, once more."""
    if not name.startswith("Vivit"):
        return 0.0
    # The video processor always does; the image processor unless it is told not to.
    told = True if "Video" in name else values.get("offset", True)
    if not isinstance(told, bool):
        raise ValueError(f"offset is {told!r}, not true or false")
    return -1.0 if told else 0.0


def _checked(processor: Any, image_size: int, offset: float) -> Preprocessing:
    """Folds `x * factor + offset`, then `(x - mean) / std`, into one mean and one deviation.

    Raises ValueError or TypeError with what is wrong.
    """
    size, crop = (
        {k: v for k, v in dict(given or {}).items() if v is not None}
        for given in (processor.size, processor.crop_size)
    )
    wanted: dict[str, tuple[Any, Any]] = {
        "do_resize": (processor.do_resize, True),
        "do_center_crop": (processor.do_center_crop, True),
        "do_rescale": (processor.do_rescale, True),
        "do_normalize": (processor.do_normalize, True),
        "resample": (processor.resample, _BILINEAR),
        "crop_size": (crop, {"height": image_size, "width": image_size}),
    }
    wrong = [f"{k} is {have!r}, not {need!r}" for k, (have, need) in wanted.items() if have != need]
    if size.keys() != {"shortest_edge"} or size["shortest_edge"] < image_size:
        wrong.append(f"size is {size!r}, not {{'shortest_edge': at least {image_size}}}")
    if wrong:
        raise ValueError("; ".join(wrong))
    factor = _number("rescale_factor", processor.rescale_factor)
    if factor <= 0:
        raise ValueError(f"rescale_factor is {factor!r}")
    mean = _per_channel("image_mean", processor.image_mean, 1.0 / factor, -offset)
    std = _per_channel("image_std", processor.image_std, 1.0 / factor, 0.0)
    if min(std) <= 0:
        raise ValueError(f"image_std is {processor.image_std!r}, not above 0")
    return Preprocessing(short_side=size["shortest_edge"], crop_size=image_size, mean=mean, std=std)


def _per_channel(name: str, values: Any, scale: float, added: float) -> tuple[float, float, float]:
    """One number stands for all channels, in a list or not, as in transformers."""
    numbers = values if isinstance(values, list | tuple) else [values]
    if len(numbers) == 1:
        numbers = [*numbers] * 3
    if len(numbers) != 3:
        raise ValueError(f"{name} is {values!r}, not one number or one for each of 3 channels")
    red, green, blue = ((_number(name, value) + added) * scale for value in numbers)
    return red, green, blue


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{name} holds {value!r}, not a number")
    return float(value)
