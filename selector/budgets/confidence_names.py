"""A confidence by its name, as `lite.json` and the command line have it.

`backbone:RATIO`; `movinet:A0@FILE`, A1 or A2, with the file of a base state dict;
`hf:FOLDER_OR_ID`, a Hugging Face video classifier; or `torchvision:NAME@WEIGHTS`, WEIGHTS being a
state dict's file or one of torchvision's names (`KINETICS400_V1`).
"""

from __future__ import annotations

import re
from pathlib import Path

from pipeline.backbones.base import Backbone
from pipeline.errors import ConfigError
from selector.budgets.classifiers import load_classifier
from selector.budgets.confidence import BackboneConfidence, Confidence

DEFAULT_CONFIDENCE = "backbone:0.05"

_MODEL = re.compile(r"(hf:|(?:movinet|torchvision):[^@]+@)(.+)", re.DOTALL)


def load_confidence(spec: str, backbone: Backbone) -> Confidence:
    """Make what `spec` names, for clips prepared for `backbone`, on its device.

    Args:
        spec: see the module.
        backbone: the backbone that the budget is for.

    Raises:
        ConfigError: `spec` is none of these, or the model cannot be loaded or used.
    """
    place = local_place(spec)
    kind, _, name = (spec if place is None else with_place(spec, place)).partition(":")
    if kind == "backbone":
        try:
            keep_ratio = float(name)
        except ValueError:
            raise ConfigError(f"confidence {spec!r}: {name!r} is not a keep ratio") from None
        return BackboneConfidence(backbone, keep_ratio)
    if kind in ("hf", "movinet", "torchvision") and name:
        return load_classifier(kind, name, backbone)
    raise ConfigError(
        "a confidence is backbone:RATIO, movinet:A0@FILE, hf:FOLDER_OR_ID or "
        f"torchvision:NAME@WEIGHTS, got {spec!r}"
    )


def local_place(spec: str) -> Path | None:
    """The folder or file on this machine that `spec` names; None where it names no such place."""
    match = _MODEL.fullmatch(spec)
    path = Path(match[2]).expanduser() if match else None
    return path if path is not None and path.exists() else None


def with_place(spec: str, place: str | Path) -> str:
    """`spec` with another folder or file; only for one that has a `local_place`."""
    return _MODEL.sub(lambda match: f"{match[1]}{place}", spec)


def to_stored(spec: str, folder: Path) -> str:
    """As a file in `folder` writes it: `./` stands for that folder, other places are absolute."""
    place = local_place(spec)
    if place is None:
        return spec
    # Not resolved: in the hub's cache a file is a link that leads out of the folder.
    place, folder = place.absolute(), folder.absolute()
    inside = place.is_relative_to(folder)
    return with_place(spec, f"./{place.relative_to(folder).as_posix()}" if inside else place)


def from_stored(spec: str, folder: Path) -> str:
    """The inverse of `to_stored`."""
    match = _MODEL.fullmatch(spec)
    if match is None or not match[2].startswith("./"):
        return spec
    return with_place(spec, folder.absolute() / match[2])
