"""Refuses a checkpoint and a dataset that do not mean the same classes."""

from __future__ import annotations

from datasets_spec.agreement import Agreement, compare_classes
from pipeline.backbones.base import Backbone
from pipeline.errors import BackboneError


def require_same_classes(
    dataset: str, label_names: list[str], backbone: Backbone, checkpoint: str
) -> None:
    """Refuse a checkpoint whose class ids are known to mean something else than the dataset's.

    Args:
        dataset: the dataset's name, for the message.
        label_names: its class names, in order.
        backbone: the loaded checkpoint.
        checkpoint: its name, for the message.

    Raises:
        BackboneError: another number of classes, or another meaning of a class id.
    """
    names = backbone.label_names or [f"LABEL_{i}" for i in range(backbone.num_classes)]
    agreement = compare_classes(label_names, names)
    if agreement.fits:
        return
    what = f"dataset {dataset} ({len(label_names)} classes) and checkpoint {checkpoint} "
    if agreement.verdict == Agreement.COUNTS:
        raise BackboneError(
            f"{what}({len(names)} classes) do not go together: take a checkpoint that was "
            "fine-tuned on this dataset"
        )
    first = agreement.differences[0]
    raise BackboneError(
        f"{what}do not mean the same by a class id: {first.class_id} is {first.dataset!r} in the "
        f"dataset and {first.checkpoint!r} in the checkpoint ({len(agreement.differences)} differ)."
        " Fix the order in a dataset YAML, or take a checkpoint fine-tuned on this dataset; "
        "`lite-pipeline datasets check --backbone` lists them"
    )
