"""Whose names a run takes, and when it does not begin."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from datasets_spec.agreement import Agreement
from pipeline.clips.classes import settle_classes
from pipeline.errors import BackboneError


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
        settle(["a", "b"], ["a", "b", "c"], accept=True)
