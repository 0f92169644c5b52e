"""Do a checkpoint's classes and a dataset's mean the same, in the same order?

Everything downstream takes class ids for granted: a checkpoint whose classes are in another order
gives plausible tensors and near-zero accuracy, so this is asked before any video is decoded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from datasets_spec.errors import DatasetSpecError
from datasets_spec.names import are_ids, class_numbers, fold, folds_apart, normal
from datasets_spec.textio import parse_json


class Agreement(StrEnum):
    """How two class lists relate."""

    SAME = "same_names_same_order"
    REORDERED = "same_names_other_order"
    RENAMED = "some_names_differ"  # those that both know are in the same places
    UNNAMED = "only_counts_agree"  # one side only counts its classes: 0, 1, ... or LABEL_0, ...
    DIFFERENT = "other_names"  # no name in common
    COUNTS = "counts_differ"

    @property
    def meaning(self) -> str:
        """The verdict in words, of a checkpoint."""
        return _MEANINGS[self]


_MEANINGS = {
    Agreement.SAME: "the same names in the same order",
    Agreement.REORDERED: "THE SAME NAMES IN ANOTHER ORDER: every label would be wrong",
    Agreement.RENAMED: "SOME NAMES DIFFER; those that both know are in the same places",
    Agreement.UNNAMED: "only the counts agree: dataset or checkpoint has ids in place of names",
    Agreement.DIFFERENT: "NO NAME IN COMMON: a checkpoint of another dataset",
    Agreement.COUNTS: "THE COUNTS DIFFER",
}


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
        return self.verdict in (Agreement.SAME, Agreement.UNNAMED)

    @property
    def acceptable(self) -> bool:
        """Whether somebody who knows better may say that the ids mean the same."""
        return self.verdict is not Agreement.COUNTS


def compare_classes(dataset: Sequence[str], checkpoint: Sequence[str]) -> ClassAgreement:
    """Compares class names by id.

    Exactly first. Case and separators (`names.fold`) do not count where they tell no two classes
    of either list apart. A list that only counts its classes has no names to disagree with, but
    numbers disagree with other numbers: `LABEL_1` is the class `1`.
    """
    ours, theirs = _keys(dataset, checkpoint)
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
    elif [normal(name) for name in dataset] == [normal(name) for name in checkpoint]:
        verdict = Agreement.SAME
    elif _has_no_names_for(dataset, checkpoint) or _has_no_names_for(checkpoint, dataset):
        verdict, differences = Agreement.UNNAMED, ()
    elif not differences:
        verdict = Agreement.SAME
    else:
        places = {name: number for number, name in enumerate(theirs)}
        shared = [(number, places[name]) for number, name in enumerate(ours) if name in places]
        if any(here != there for here, there in shared):
            verdict = Agreement.REORDERED
        else:
            verdict = Agreement.RENAMED if shared else Agreement.DIFFERENT
    return ClassAgreement(verdict, len(dataset), len(checkpoint), differences)


def _keys(one: Sequence[str], other: Sequence[str]) -> tuple[list[str], list[str]]:
    """What is compared: numbers where both lists are numbers, folded names where that is safe."""
    numbers = class_numbers(one), class_numbers(other)
    if numbers[0] is not None and numbers[1] is not None:
        return [str(number) for number in numbers[0]], [str(number) for number in numbers[1]]
    key = fold if folds_apart(one) and folds_apart(other) else normal
    return [key(name) for name in one], [key(name) for name in other]


def _has_no_names_for(names: Sequence[str], others: Sequence[str]) -> bool:
    """Whether `names` are ids, and `others` are the same ids or no numbers at all."""
    return are_ids(names) and (are_ids(others) or class_numbers(others) is None)


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
    return [normal(str(names[str(number)])) for number in range(len(names))]
