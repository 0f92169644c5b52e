"""The gate for a model's inputs: what is meant is understood, and what may not be is named.

Frames come in two forms: raw, as they are decoded, and normalised, as a processor makes them. One
taken for the other gives an answer all the same, and a wrong one.

Axes: B clips, T frames, H and W pixels, of which a backbone wants one size.
"""

from __future__ import annotations

import itertools
import logging
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from pipeline.backbones.base import Backbone

logger = logging.getLogger(__name__)

_FAR = 30
"""Raw frames reach beyond unless they are all but black; normalised ones end at about 3, and noise
of their scale stays below."""


def raw_clips(clips: object, backbone: Backbone) -> Tensor:
    """Decoded frames as a tensor that shares the caller's memory where it can.

    Args:
        clips: uint8 (B, T, H, W, 3): a tensor, an array in any memory order, or nested lists of
            arrays or pictures.
        backbone: whose frames they are to be.

    Returns:
        uint8 (B, T, H, W, 3), not to be written into.

    Raises:
        ConfigError: another shape or type; names the wanted one.
    """
    if not isinstance(clips, Tensor):
        try:
            array = np.asarray(clips)
        except (ValueError, TypeError, RuntimeError) as error:
            raise ConfigError(f"clips must be one uint8 array (B, T, H, W, 3): {error}") from error
        if array.dtype != np.uint8:
            raise ConfigError(_not_raw(str(array.dtype)))
        if not array.flags.writeable or any(stride < 0 for stride in array.strides):
            array = array.copy()  # PyTorch takes neither
        clips = torch.from_numpy(array)
    if clips.dtype != torch.uint8:
        raise ConfigError(_not_raw(str(clips.dtype).removeprefix("torch.")))
    side = backbone.image_size
    _check_shape("clips", clips, (backbone.num_frames, side, side, 3))
    return clips


def normalised_clips(pixel_values: object, backbone: Backbone) -> Tensor:
    """Normalised frames on a backbone's device, in its precision.

    Args:
        pixel_values: (B, T, 3, H, W), any float dtype.
        backbone: whose input they are.

    Raises:
        ConfigError: another shape or type, or values that no processor gives.
    """
    if not isinstance(pixel_values, Tensor):
        raise ConfigError(
            "pixel_values must be a float tensor (B, T, 3, H, W), got "
            f"{type(pixel_values).__name__}"
        )
    if not pixel_values.dtype.is_floating_point:
        raise ConfigError(
            "pixel_values must be normalised frames in floating point, got "
            f"{str(pixel_values.dtype).removeprefix('torch.')}: raw uint8 frames (B, T, H, W, 3) "
            "go through backbone.pixel_values, or the checkpoint's processor, first"
        )
    side = backbone.image_size
    _check_shape("pixel_values", pixel_values, (backbone.num_frames, 3, side, side))
    if pixel_values.numel() and _may_look(pixel_values):
        done = backbone.preprocessing
        lowest = min(-mean / std for mean, std in zip(done.mean, done.std, strict=True))
        highest = max((255 - mean) / std for mean, std in zip(done.mean, done.std, strict=True))
        _check_range(pixel_values, lowest, highest)
    return pixel_values.to(device=backbone.device, dtype=backbone.dtype)


def _not_raw(dtype: str) -> str:
    return (
        f"clips must be uint8, 0 to 255, got {dtype}: whether such numbers mean 0..1, 0..255 or "
        "normalised frames cannot be told. Convert the first two to uint8; the last are a model's "
        "pixel_values already"
    )


def _check_shape(name: str, clips: Tensor, wanted: tuple[int, ...]) -> None:
    if tuple(clips.shape[1:]) == wanted:
        return
    shape = tuple(clips.shape)
    hint = ""
    if shape == wanted:
        hint = f"; one clip alone needs a batch axis: {name}[None]"
    elif len(shape) == 5:
        for order in itertools.permutations(range(1, 5)):
            if tuple(shape[axis] for axis in order) == wanted:
                hint = f"; its axes are in another order: {name}.permute{(0, *order)}"
                break
    raise ConfigError(f"{name} must be (B, {', '.join(map(str, wanted))}), got {shape}{hint}")


def _may_look(values: Tensor) -> bool:
    """Whether the values can be read: not while a graph is recorded, nor where there are none."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or values.is_meta:
        return False
    return not (values.is_cuda and torch.cuda.is_current_stream_capturing())


def _check_range(values: Tensor, lowest: float, highest: float) -> None:
    low, high = (float(end) for end in torch.aminmax(values.detach()))
    if not max(-low, high) <= max(_FAR, 4 * max(-lowest, highest)):  # NaN is in no order
        raise ConfigError(
            f"pixel_values reach from {low:.4g} to {high:.4g}, and normalised frames from "
            f"{lowest:.4g} to {highest:.4g}: raw frames go through backbone.pixel_values, or the "
            "checkpoint's processor, first"
        )
    if low >= 0 and 0.5 < high <= 1:
        logger.warning(
            "pixel_values lie between 0 and 1, as frames do that were scaled but not normalised; "
            "normalised ones of this checkpoint lie between %.4g and %.4g",
            lowest,
            highest,
        )
