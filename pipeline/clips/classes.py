"""What a class id means: the dataset's names, the checkpoint's, and those that a user types."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from datasets_spec.agreement import Agreement, compare_classes
from datasets_spec.names import are_ids, normal, similar, whole_number
from pipeline.errors import BackboneError, ConfigError

if TYPE_CHECKING:  # or `show` would wait for torch
    from pipeline.backbones.base import Backbone


class Classes(NamedTuple):
    """What the class ids of a run mean."""

    names: list[str]
    """By class id: the dataset's names, or the checkpoint's where the dataset only has ids."""
    agreement: Agreement
    """How the two lists relate; one that does not fit was accepted."""


def settle_classes(
    dataset: str,
    label_names: list[str],
    backbone: Backbone,
    checkpoint: str,
    *,
    accept: bool = False,
) -> Classes:
    """Refuse a checkpoint whose class ids are known to mean something else than the dataset's.

    Args:
        dataset: the dataset's name, for the message.
        label_names: its class names, in order.
        backbone: the loaded checkpoint.
        checkpoint: its name, for the message.
        accept: go on where names disagree, on the user's word that the ids mean the same.

    Raises:
        BackboneError: another number of classes, or another meaning of a class id.
    """
    names = backbone.label_names or [f"LABEL_{i}" for i in range(backbone.num_classes)]
    agreement = compare_classes(label_names, names)
    if agreement.fits or (accept and agreement.acceptable):
        unnamed = are_ids(label_names) and backbone.label_names is not None
        return Classes(names if unnamed else label_names, agreement.verdict)
    what = f"dataset {dataset} ({len(label_names)} classes) and checkpoint {checkpoint} "
    numbered = are_ids(label_names)
    some = set(label_names) < set(names) or (numbered and len(label_names) < len(names))
    if agreement.verdict == Agreement.COUNTS and some:
        raise BackboneError(
            f"{what}({len(names)} classes) differ in number, though the checkpoint knows all of "
            "these: write its class names, in its order, as `labels: {names: [...]}` into a "
            "dataset YAML (see `lite-pipeline datasets`); `lite-pipeline datasets check "
            "--backbone` lists the names"
        )
    if numbered and len(label_names) == len(names) + 1:
        raise BackboneError(
            f"{what}({len(names)} classes) differ by one: its labels are numbers, and class ids "
            "count from 0. Where they were counted from 1, take 1 off each; else take a "
            "checkpoint that was fine-tuned on this dataset"
        )
    if agreement.verdict == Agreement.COUNTS:
        raise BackboneError(
            f"{what}({len(names)} classes) do not go together: take a checkpoint that was "
            "fine-tuned on this dataset; `lite-pipeline datasets check --backbone` lists the names"
        )
    first = agreement.differences[0]
    raise BackboneError(
        f"{what}do not mean the same by a class id: {first.class_id} is {first.dataset!r} in the "
        f"dataset and {first.checkpoint!r} in the checkpoint ({len(agreement.differences)} differ)."
        " Fix the order in a dataset YAML, or take a checkpoint fine-tuned on this dataset; "
        "`lite-pipeline datasets check --backbone` lists them. If the ids mean the same all the "
        "same, say --accept-classes"
    )


def class_of(text: str, names: Mapping[int, str]) -> int:
    """The class that somebody means: its name or, where no class is called so, its number.

    Args:
        text: as it was typed, in any of Unicode's forms.
        names: by class id.

    Raises:
        ConfigError: there is no such class, and similar ones are named; or there are several.
    """
    named = [class_id for class_id, name in names.items() if normal(name) == normal(text)]
    number = whole_number(text)
    if not named and number is not None and number in names:
        return number
    if not named:
        near = similar(normal(text), [normal(name) for name in names.values()])
        raise ConfigError(f"no class is called {text!r}; similar: {near}")
    if len(named) > 1:
        raise ConfigError(
            f"classes {', '.join(map(str, named))} are all called {text!r}: give a number"
        )
    return named[0]
