"""Does a checkpoint's class order agree with the dataset's?"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from datasets_spec import DatasetSpecError
from datasets_spec.agreement import (
    Agreement,
    Difference,
    compare_classes,
    read_checkpoint_classes,
)

NAMES = ["arm wrestling", "Closing something", "zumba"]


@pytest.mark.parametrize(
    ("checkpoint", "verdict", "fits", "ids"),
    [
        (["arm_wrestling", "closing [something]", "'Zumba'"], Agreement.SAME, True, []),
        (["Closing something", "arm wrestling", "zumba"], Agreement.REORDERED, False, [0, 1]),
        (["arm wrestling", "closing a door", "zumba"], Agreement.RENAMED, True, [1]),
        (["zumba", "closing a door", "yoga"], Agreement.REORDERED, False, [0, 1, 2]),
        (["LABEL_0", "LABEL_1", "LABEL_2"], Agreement.UNNAMED, True, []),
        (["0", "1", "2"], Agreement.UNNAMED, True, []),
        (["LABEL_1", "LABEL_0", "LABEL_2"], Agreement.DIFFERENT, False, [0, 1, 2]),
        (["red", "green", "blue"], Agreement.DIFFERENT, False, [0, 1, 2]),
        (["arm wrestling", "Closing something"], Agreement.COUNTS, False, [2]),
        ([*NAMES, "yoga"], Agreement.COUNTS, False, [3]),
    ],
)
def test_verdicts(checkpoint: list[str], verdict: Agreement, fits: bool, ids: list[int]) -> None:
    result = compare_classes(NAMES, checkpoint)
    assert (result.verdict, result.fits) == (verdict, fits)
    assert [difference.class_id for difference in result.differences] == ids


def test_a_difference_names_both_sides() -> None:
    assert compare_classes(["a"], ["a", "b"]).differences == (Difference(1, None, "b"),)


def test_checkpoint_classes_come_from_its_configuration(tmp_path: Path) -> None:
    names = {"1": "b", "0": "a", "10": "k"} | {str(i): f"x{i}" for i in range(2, 10)}
    (tmp_path / "config.json").write_text(json.dumps({"id2label": names}))
    assert read_checkpoint_classes(tmp_path) == ["a", "b", *(f"x{i}" for i in range(2, 10)), "k"]


@pytest.mark.parametrize(("config", "count"), [({}, 2), ({"num_labels": 3}, 3)])
def test_a_configuration_without_names(tmp_path: Path, config: dict[str, int], count: int) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert read_checkpoint_classes(tmp_path) == [f"LABEL_{i}" for i in range(count)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "takes a checkpoint folder"),
        ("{", "not valid JSON"),
        ("[]", "expected the configuration of a model"),
        ('{"id2label": {"0": "a", "2": "b"}}', "does not number its classes 0 to n-1"),
        ('{"id2label": ["a"]}', "does not number its classes"),
        ('{"num_labels": "many"}', "num_labels 'many' is no number of classes"),
    ],
)
def test_a_broken_configuration(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(DatasetSpecError, match=message):
        read_checkpoint_classes(tmp_path)
