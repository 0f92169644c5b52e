"""A MoViNet, or any video classifier of Hugging Face or torchvision, as LITE++'s confidence."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from pipeline.backbones.base import Backbone, Preprocessing
from pipeline.backbones.checkpoint import find_checkpoint, no_progress_bar, weight_files
from pipeline.backbones.preprocessing import IMAGE_PROCESSOR_NAME
from pipeline.backbones.pth import read_pth
from pipeline.backbones.tokens import Tokens
from pipeline.errors import ConfigError, LiteError
from selector.budgets.confidence import Confidence, Judgement, largest_probability
from selector.budgets.movinet import FIRST_KEY, VARIANTS, load_movinet
from selector.methods.cost import count_gmacs, without_data


@dataclass(frozen=True, kw_only=True)
class ClassifierInput:
    """What a classifier wants to see."""

    num_frames: int
    """Frames, spread evenly over the backbone's."""
    size: int
    """Side of the square frame, in pixels."""
    mean: tuple[float, ...]
    """Per channel, on the scale 0..1."""
    std: tuple[float, ...]
    """Per channel, on the scale 0..1."""
    channels_first: bool
    """(B, 3, T, H, W) as torchvision's models take it, not (B, T, 3, H, W)."""


class ClassifierConfidence(Confidence):
    """The largest class probability of another model, fed from the backbone's own input.

    The clip is not decoded again: its normalisation is undone, its frames are thinned and resized.
    """

    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(self, model: nn.Module, wanted: ClassifierInput, given: Preprocessing) -> None:
        super().__init__()
        self.model = model.eval().requires_grad_(False)
        self.wanted = wanted
        # wanted = (pixel * given.std + given.mean) / 255, less its mean, over its std.
        shape = (1, 1, 3, 1, 1)
        std, mean = torch.tensor(wanted.std), torch.tensor(wanted.mean)
        scale = torch.tensor(given.std) / 255 / std
        shift = (torch.tensor(given.mean) / 255 - mean) / std
        self.register_buffer("scale", scale.reshape(shape), persistent=False)
        self.register_buffer("shift", shift.reshape(shape), persistent=False)
        frames = torch.empty(self._shape(1), device="meta")
        self.gmacs = count_gmacs(without_data(self.model), frames)

    def forward(
        self, pixel_values: torch.Tensor, tokens: Tokens, ranking: torch.Tensor
    ) -> Judgement:
        """Classify the frames; tokens and ranking are the backbone's affair."""
        if not pixel_values.shape[0]:  # which few models take
            return Judgement(pixel_values.new_empty(0, dtype=torch.float32))
        output: Any = self.model(self.prepare(pixel_values))
        return Judgement(largest_probability(getattr(output, "logits", output)))

    def prepare(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """The backbone's input as this model wants it, float32."""
        num_given, num = pixel_values.shape[1], self.wanted.num_frames
        middle = (2 * torch.arange(num, device=pixel_values.device) + 1) * num_given // (2 * num)
        frames = pixel_values[:, middle].float() * self.scale + self.shift
        if frames.shape[-1] != self.wanted.size:
            size = [self.wanted.size] * 2
            flat = F.interpolate(frames.flatten(0, 1), size, mode="bilinear", antialias=True)
            frames = flat.unflatten(0, (len(pixel_values), num))
        return frames.transpose(1, 2) if self.wanted.channels_first else frames

    def _shape(self, batch: int) -> tuple[int, ...]:
        num, size = self.wanted.num_frames, self.wanted.size
        if self.wanted.channels_first:
            return batch, 3, num, size, size
        return batch, num, 3, size, size


def load_classifier(kind: str, name: str, backbone: Backbone) -> ClassifierConfidence:
    """Load a classifier; see `selector.budgets.confidence_names`.

    Raises:
        ConfigError: it is not found, does not load faithfully, or cannot take these clips.
    """
    load = {
        "hf": _load_hugging_face,
        "movinet": _load_movinet,
        "torchvision": _load_torchvision,
    }[kind]
    model, wanted = load(name, backbone.num_frames)
    try:
        confidence = ClassifierConfidence(model, wanted, backbone.preprocessing)
    except (RuntimeError, ValueError, AssertionError) as error:
        raise ConfigError(
            f"{kind}:{name} cannot take {wanted.num_frames} frames of {wanted.size} pixels: {error}"
        ) from error
    return confidence.to(backbone.device)


def _load_hugging_face(name: str, num_frames: int) -> tuple[nn.Module, ClassifierInput]:
    from transformers import AutoModelForVideoClassification

    loader: Any = AutoModelForVideoClassification  # its stubs do not know output_loading_info
    try:
        folder = find_checkpoint(name)
        weight_files(folder)  # refuses what transformers would load besides
        with no_progress_bar():
            # A checkpoint's own code is never run, nor is anybody asked whether it may.
            model, info = loader.from_pretrained(
                folder,
                output_loading_info=True,
                attn_implementation="sdpa",
                dtype=torch.float32,
                trust_remote_code=False,
            )
        mean, std = _normalisation(folder, model.config.image_size)
    except Exception as error:  # transformers raises whatever its parsers do
        raise ConfigError(f"cannot load the classifier hf:{name}: {error}") from error
    wrong = [key for kind in ("missing_keys", "unexpected_keys") for key in info[kind]]
    if wrong or model.main_input_name != "pixel_values":
        reason = f"keys that do not match: {sorted(wrong)[:3]}" if wrong else "another input"
        raise ConfigError(f"hf:{name} is no video classifier that can be used here ({reason})")
    return model, ClassifierInput(
        num_frames=getattr(model.config, "num_frames", num_frames),
        size=model.config.image_size,
        mean=mean,
        std=std,
        channels_first=False,
    )


def _normalisation(folder: Path, size: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation per channel that say what a processor does, on the scale 0..1.

    Read off what it makes of black and of white: processors differ in more than these two numbers
    (ViViT's subtracts an offset as well).
    """
    from transformers import AutoImageProcessor

    kind: Any = AutoImageProcessor
    if not (folder / IMAGE_PROCESSOR_NAME).is_file():
        from transformers import AutoVideoProcessor  # only in newer releases, as such files are

        kind = AutoVideoProcessor
    processor = kind.from_pretrained(folder, trust_remote_code=False)
    black, white = (
        _channels(processor([np.full((size, size, 3), value, np.uint8)] * 2, return_tensors="pt"))
        for value in (0, 255)
    )
    std = 1 / (white - black)
    return tuple((-black * std).tolist()), tuple(std.tolist())


def _channels(made: Any) -> torch.Tensor:
    """The value of each channel, float64 (3,), of frames of one colour (1, T, 3, H, W)."""
    frames: torch.Tensor = made["pixel_values"].double()
    value = frames[0, 0, :, 0, 0]
    if frames.dim() != 5 or not torch.allclose(frames, value.reshape(3, 1, 1)):
        raise ValueError("its processor does not make a plain frame plain")
    return value


def _load_movinet(name: str, num_frames: int) -> tuple[nn.Module, ClassifierInput]:
    name, _, weights = name.partition("@")
    if name not in VARIANTS or not weights:
        raise ConfigError(
            f"movinet:{name} needs one of {', '.join(VARIANTS)} and, after an @, the file of its "
            "base state dict"
        )
    try:
        found = read_pth(Path(weights), None, FIRST_KEY)
        model = load_movinet(name, found.weights)
    except LiteError as error:
        raise ConfigError(
            f"cannot load the weights {weights!r} of MoViNet {name}: {error}"
        ) from error
    # What `train-confidence` writes says what it saw; the release's files do not.
    seen = {"num_frames": num_frames, "input_size": VARIANTS[name].image_size}
    seen |= {key: found.arguments[key] for key in seen if key in found.arguments}
    if not all(isinstance(value, int) and value > 0 for value in seen.values()):
        raise ConfigError(f"{weights!r} says that its MoViNet was trained on {seen}: no such clip")
    return model, movinet_input(seen["num_frames"], seen["input_size"])


def movinet_input(num_frames: int, size: int) -> ClassifierInput:
    """As published: every pixel in 0..1, not normalised."""
    return ClassifierInput(
        num_frames=num_frames,
        size=size,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        channels_first=True,
    )


def _load_torchvision(name: str, num_frames: int) -> tuple[nn.Module, ClassifierInput]:
    import torchvision

    name, _, weights = name.partition("@")
    known = torchvision.models.list_models(module=torchvision.models.video)
    if name not in known or not weights:
        raise ConfigError(
            f"torchvision:{name} needs a model of {', '.join(known)} and, after an @, its weights: "
            "a state dict's path, or a name such as KINETICS400_V1"
        )
    enum = torchvision.models.get_model_weights(name)
    try:
        if weights in enum.__members__ and not Path(weights).is_file():
            state = enum[weights].get_state_dict(check_hash=True, weights_only=True)
        else:
            state = torch.load(weights, map_location="cpu", weights_only=True)
        num_classes = len(list(state.values())[-1])  # the classifier's bias
        model = torchvision.models.get_model(name, num_classes=num_classes)
        model.load_state_dict(state)
    except Exception as error:  # a damaged or foreign file may raise anything
        reason = f"{type(error).__name__}: {error}".split("\n", 1)[0]
        if isinstance(error, pickle.UnpicklingError):  # whose advice is to run what it holds
            reason = "it is damaged, or holds more than weights, which could be harmful"
        raise ConfigError(
            f"cannot load the weights {weights!r} of {name}, which must be a state dict of that "
            f"model, saved with torch.save: {reason}"
        ) from error
    preset = enum.DEFAULT.transforms()
    return model, ClassifierInput(
        num_frames=num_frames,
        size=preset.crop_size[0],
        mean=tuple(preset.mean),
        std=tuple(preset.std),
        channels_first=True,
    )
