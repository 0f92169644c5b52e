"""Settles what a class id means: the dataset's names against the checkpoint's."""

from __future__ import annotations

from typing import NamedTuple

from datasets_spec.agreement import Agreement, compare_classes
from datasets_spec.names import are_ids
from pipeline.backbones.base import Backbone
from pipeline.errors import BackboneError


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
