"""What the adapters over Hugging Face transformers share: loading, sizes, names, identity."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import nn

from pipeline.backbones.base import Backbone, Block, Preprocessing
from pipeline.backbones.checkpoint import checkpoint_digest, read_config
from pipeline.backbones.preprocessing import read_preprocessing
from pipeline.backbones.strict import Renamed, describe_strictly, load_strictly
from pipeline.backbones.tokens import NOTHING, Tokens
from pipeline.clips.grid import TokenGrid
from pipeline.errors import BackboneError


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Sizes as a configuration spells them, to be checked; each is one number in what is used.

    Attributes:
        num_channels: colours of a frame.
        num_frames: frames of a clip.
        tubelet_size: frames of a token.
        image_size: pixels of the input along height and width.
        patch_size: pixels of a token along height and width.
        num_heads: attention heads of a block.
    """

    num_channels: Any
    num_frames: Any
    tubelet_size: Any
    image_size: Any
    patch_size: Any
    num_heads: Any


class HuggingFaceBackbone(Backbone):
    """A fine-tuned video classifier of transformers, frozen and in evaluation mode.

    Args:
        model: of the class that `architecture` names.
        preprocessing: of its processor.
        digest: of its files.

    Raises:
        BackboneError: its sizes or its kind cannot be used here.
    """

    model_type: ClassVar[str]
    """In `config.json`."""
    architecture: ClassVar[str]
    """Class in transformers."""
    renamed: ClassVar[Renamed] = ()
    """Keys that releases of transformers name differently; see `strict.load_strictly`."""

    def __init__(self, model: Any, preprocessing: Preprocessing, digest: str = "") -> None:
        super().__init__()
        self.model = model
        self.preprocessing, self.digest = preprocessing, digest
        sizes = _checked(self.sizes(model.config))
        self.num_frames, self.tubelet_size = sizes.num_frames, sizes.tubelet_size
        self.patch_size = sizes.patch_size
        side = sizes.image_size // sizes.patch_size
        self.grid = TokenGrid(sizes.num_frames // sizes.tubelet_size, side, side)
        self.hidden_size = model.config.hidden_size
        self.head_size = self.hidden_size // sizes.num_heads
        self.num_classes = model.config.num_labels
        names = [model.config.id2label[i] for i in range(self.num_classes)]
        # Hugging Face invents LABEL_0 ... where nobody named the classes.
        generic = all(name == f"LABEL_{i}" for i, name in enumerate(names))
        self.label_names = None if generic else names

    @classmethod
    @abstractmethod
    def sizes(cls, config: Any) -> Sizes:
        """The sizes in a model's configuration."""

    @classmethod
    def from_folder(cls, folder: Path, device: str, dtype: torch.dtype) -> Self:
        """Load a checkpoint strictly.

        Args:
            folder: that `save_pretrained` wrote, with its processor.
            device: of the weights; on `meta` they have no values, and none is read.
            dtype: of the weights.

        Raises:
            BackboneError: another architecture; a key is missing, unexpected, of another shape or
                loaded with other values; a processor or sizes that cannot be used here.
        """
        found = read_config(folder).get("model_type")
        if found != cls.model_type:
            raise BackboneError(f"{folder} is a {found!r} checkpoint, not {cls.model_type!r}")
        model = None
        if device == "meta":
            model = describe_strictly(folder, cls.architecture, cls.renamed)
        if model is None:
            model = load_strictly(folder, cls.architecture, cls.renamed)
        try:
            image_size = _checked(cls.sizes(model.config)).image_size
            preprocessing = read_preprocessing(folder, image_size)
            backbone = cls(model, preprocessing, checkpoint_digest(folder))
        except UnusableError as error:
            raise BackboneError(f"{folder} cannot be used here: {error}") from error
        return backbone.eval().to(device=device, dtype=dtype)

    @classmethod
    def from_model(cls, model: Any) -> Self:
        """Adapt a model in memory; see `pipeline.backbones.adapt`.

        Raises:
            BackboneError: its sizes or its kind cannot be used here.
        """
        try:
            side = _checked(cls.sizes(model.config)).image_size
            # What is not known must not pass for something: frames normalised by it are refused.
            unknown = (math.nan,) * 3
            return cls(
                model, Preprocessing(short_side=side, crop_size=side, mean=unknown, std=unknown)
            )
        except UnusableError as error:
            raise BackboneError(f"this model cannot be used here: {error}") from error


class UnusableError(BackboneError):
    """Says what is wrong, and `from_folder` where."""


def _checked(sizes: Sizes) -> Sizes:
    """The same as numbers of a clip of whole tubelets and square patches in three colours."""
    wrong = []
    if sizes.num_channels != 3:
        wrong.append(f"num_channels is {sizes.num_channels}, and videos have 3")
    square: dict[str, int] = {}
    for name in ("image_size", "patch_size"):
        size = getattr(sizes, name)
        sides = set(size) if isinstance(size, list | tuple) else {size}
        if len(sides) != 1 or not all(isinstance(side, int) for side in sides):
            wrong.append(f"{name} is {size!r}, not one number")
        else:
            square[name] = sides.pop()
    if len(square) == 2 and square["image_size"] % square["patch_size"]:
        wrong.append(
            f"image_size {square['image_size']} is no multiple of patch_size {square['patch_size']}"
        )
    if sizes.num_frames % sizes.tubelet_size:
        wrong.append(
            f"num_frames {sizes.num_frames} is no multiple of tubelet_size {sizes.tubelet_size}"
        )
    if wrong:
        raise UnusableError("; ".join(wrong))
    return replace(sizes, **square)


class HalvedBlock(Block):
    """A block that always runs in its halves, where Hugging Face's own does not fit.

    Args:
        layer: Hugging Face's, whose parts run and which itself does not; see `prepare_halves`.
    """

    def __init__(self, layer: Any) -> None:
        self.layer = layer

    def __call__(self, x: Tokens) -> Tokens:
        """Both halves."""
        x, _ = self.attend(x, NOTHING)
        x = self.mlp(x)
        return replace(x, values=self.layer.tap(x.values))


def prepare_halves(layers: nn.ModuleList) -> None:
    """Gives each layer a module that passes on its output, for hooks on what it no longer runs."""
    for layer in layers:
        layer.tap = nn.Identity()
