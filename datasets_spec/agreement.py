"""Do a checkpoint's classes and a dataset's mean the same, in the same order?

Everything downstream takes class ids for granted: a checkpoint whose classes are in another order
gives plausible tensors and near-zero accuracy, so this is asked before any video is decoded.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from datasets_spec.errors import DatasetSpecError
from datasets_spec.textio import parse_json


class Agreement(StrEnum):
    """How two class lists relate."""

    SAME = "same_names_same_order"
    REORDERED = "same_names_other_order"
    RENAMED = "some_names_differ"  # those that both know are in the same places
    UNNAMED = "only_counts_agree"  # the checkpoint says LABEL_0, LABEL_1, ...
    DIFFERENT = "other_names"  # no name in common
    COUNTS = "counts_differ"


@dataclass(frozen=True)
class Difference:
    """A class id that means two things; None where one side has no such id."""

    class_id: int
    dataset: str | None
    checkpoint: str | None


@dataclass(frozen=True)
class ClassAgreement:
    """The verdict on two class lists."""

    verdict: Agreement
    num_dataset: int
    num_checkpoint: int
    differences: tuple[Difference, ...]
    """Ids whose names differ, ascending; empty for `UNNAMED`."""

    @property
    def fits(self) -> bool:
        """Whether a build may go on: no class id is known to mean two things."""
        return self.verdict in (Agreement.SAME, Agreement.RENAMED, Agreement.UNNAMED)


def compare_classes(dataset: Sequence[str], checkpoint: Sequence[str]) -> ClassAgreement:
    """Compares class names by id; case, spaces, brackets and punctuation do not count."""
    ours, theirs = [_plain(name) for name in dataset], [_plain(name) for name in checkpoint]
    differences = tuple(
        Difference(
            number,
            dataset[number] if number < len(dataset) else None,
            checkpoint[number] if number < len(checkpoint) else None,
        )
        for number in range(max(len(ours), len(theirs)))
        if ours[number : number + 1] != theirs[number : number + 1]
    )
    if len(ours) != len(theirs):
        verdict = Agreement.COUNTS
    elif not differences:
        verdict = Agreement.SAME
    elif all(name in (f"label{i}", str(i)) for i, name in enumerate(theirs)):
        verdict, differences = Agreement.UNNAMED, ()
    else:
        places = {name: number for number, name in enumerate(theirs)}
        shared = [(number, places[name]) for number, name in enumerate(ours) if name in places]
        if any(here != there for here, there in shared):
            verdict = Agreement.REORDERED
        else:
            verdict = Agreement.RENAMED if shared else Agreement.DIFFERENT
    return ClassAgreement(verdict, len(dataset), len(checkpoint), differences)


def read_checkpoint_classes(folder: str | Path) -> list[str]:
    """Class names of a Hugging Face checkpoint, from its `config.json` alone.

    Raises:
        DatasetSpecError: no such file, or its `id2label` does not number the classes 0..n-1.
    """
    path = Path(folder).expanduser() / "config.json"
    if not path.is_file():
        raise DatasetSpecError(
            f"no {path}: --backbone takes a checkpoint folder, as save_pretrained writes it"
        )
    config = parse_json(path)[1]
    if not isinstance(config, dict):
        raise DatasetSpecError(f"{path}: expected the configuration of a model")
    names = config.get("id2label")
    if names is None:  # transformers leaves out its default, two classes
        count = config.get("num_labels", 2)
        if isinstance(count, bool) or not isinstance(count, int):
            raise DatasetSpecError(f"{path}: num_labels {count!r} is no number of classes")
        names = {str(number): f"LABEL_{number}" for number in range(count)}
    if not isinstance(names, dict) or set(names) != {str(n) for n in range(len(names))}:
        raise DatasetSpecError(f"{path}: id2label does not number its classes 0 to n-1")
    return [str(names[str(number)]) for number in range(len(names))]


def _plain(name: str) -> str:
    return re.sub(r"[\W_]", "", name.casefold())
