"""Whose names a run takes, when it does not begin, and which class a user means."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from datasets_spec.agreement import Agreement
from pipeline.clips.classes import class_of, settle_classes
from pipeline.errors import BackboneError, ConfigError


def settle(dataset: list[str], checkpoint: list[str] | None, *, accept: bool = False) -> Any:
    """`None`: a checkpoint that does not name its classes."""
    backbone: Any = SimpleNamespace(
        label_names=checkpoint, num_classes=len(checkpoint or dataset), digest=""
    )
    return settle_classes("mine", dataset, backbone, "some/checkpoint", accept=accept)


@pytest.mark.parametrize(
    ("dataset", "checkpoint", "names", "agreement"),
    [
        (["jump", "run"], ["Jump", "Run"], ["jump", "run"], Agreement.SAME),
        (["jump", "run"], None, ["jump", "run"], Agreement.UNNAMED),
        (["0", "1"], ["jump", "run"], ["jump", "run"], Agreement.UNNAMED),
        (["0", "1"], None, ["0", "1"], Agreement.UNNAMED),
    ],
)
def test_names_where_nothing_disagrees(
    dataset: list[str], checkpoint: list[str] | None, names: list[str], agreement: Agreement
) -> None:
    assert settle(dataset, checkpoint) == (names, agreement)


def test_names_that_disagree_are_refused_unless_accepted() -> None:
    dataset, checkpoint = ["jump", "run", "swim"], ["jump", "sit", "lie"]
    message = r"1 is 'run' in the dataset and 'sit' in the checkpoint \(2 differ\).*--accept-cl"
    with pytest.raises(BackboneError, match=message):
        settle(dataset, checkpoint)
    assert settle(dataset, checkpoint, accept=True) == (dataset, Agreement.RENAMED)


def test_no_option_makes_another_number_of_classes_fit() -> None:
    with pytest.raises(BackboneError, match=r"\(2 classes\) and .* \(3 classes\) do not go toge"):
        settle(["a", "x"], ["a", "b", "c"], accept=True)


@pytest.mark.parametrize("dataset", [["a", "b"], ["0", "1"]])
def test_a_dataset_of_some_of_the_checkpoints_classes_is_told_to_list_them_all(
    dataset: list[str],
) -> None:
    with pytest.raises(BackboneError, match=r"\(3 classes\) differ in number, .*labels: \{names"):
        settle(dataset, ["b", "c", "a"], accept=True)


def test_labels_that_seem_to_count_from_one_are_said() -> None:
    with pytest.raises(BackboneError, match=r"differ by one: .* counted from 1, take 1 off each"):
        settle(["0", "1", "2", "3"], ["a", "b", "c"])


def test_a_class_is_found_by_name_then_by_number():
    names = {0: "push", 1: "pull", 2: "0"}
    assert class_of("pull", names) == 1
    assert class_of("1", names) == 1
    assert class_of("0", names) == 2  # a name beats a number
    with pytest.raises(ConfigError, match="no class is called 'pul'; similar: pull"):
        class_of("pul", names)
    for number in ("3", "9" * 5000):
        with pytest.raises(ConfigError, match="no class is called '[39]"):
            class_of(number, names)


def test_an_accent_may_be_typed_as_a_letter_of_its_own():
    """On a Mac, and in folders that were copied from one; either may be the list's."""
    composed, decomposed = "Caf\u00e9", "Cafe\u0301"
    for listed in (composed, decomposed):
        for typed in (composed, decomposed, f" {decomposed}"):
            assert class_of(typed, {0: "x", 1: listed}) == 1
    with pytest.raises(ConfigError, match=f"similar: {composed}"):
        class_of(decomposed + "s", {0: "x", 1: decomposed})


def test_a_name_of_several_classes_is_none():
    names = {0: "run", 1: "jump", 2: "run "}
    with pytest.raises(ConfigError, match="classes 0, 2 are all called 'run': give a number"):
        class_of("run", names)
    assert class_of("2", names) == 2
