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
TWELVE = [str(number) for number in range(12)]


@pytest.mark.parametrize(
    ("checkpoint", "verdict", "fits", "ids"),
    [
        (["arm_wrestling", "closing [something]", "'Zumba'"], Agreement.SAME, True, []),
        (["Closing something", "arm wrestling", "zumba"], Agreement.REORDERED, False, [0, 1]),
        (["arm wrestling", "closing a door", "zumba"], Agreement.RENAMED, False, [1]),
        (["arm wrestling", "yoga", "waving"], Agreement.RENAMED, False, [1, 2]),
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
    assert result.acceptable is (verdict is not Agreement.COUNTS)


@pytest.mark.parametrize(
    ("dataset", "checkpoint", "verdict"),
    [
        (TWELVE, TWELVE, Agreement.SAME),
        (TWELVE, [f"LABEL_{i}" for i in range(12)], Agreement.UNNAMED),
        (sorted(TWELVE), TWELVE, Agreement.REORDERED),  # 0, 1, 10, 11, 2: as text
        (TWELVE, sorted(TWELVE), Agreement.REORDERED),
        (sorted(TWELVE), [f"LABEL_{i}" for i in range(12)], Agreement.REORDERED),
        (["1", "2", "3"], ["LABEL_0", "LABEL_1", "LABEL_2"], Agreement.REORDERED),
        (["7", "8"], ["LABEL_0", "LABEL_1"], Agreement.DIFFERENT),
        (["0.0", "1.0"], ["0", "1"], Agreement.UNNAMED),
        (["1", "2", "3"], ["01", "02", "03"], Agreement.SAME),
        # Ids have no names to disagree with; other numbers have.
        (["0", "1", "2"], ["jump", "run", "walk"], Agreement.UNNAMED),
        (["1", "2", "3"], ["jump", "run", "walk"], Agreement.DIFFERENT),
    ],
)
def test_numbers_are_the_classes_they_name(
    dataset: list[str], checkpoint: list[str], verdict: Agreement
) -> None:
    assert compare_classes(dataset, checkpoint).verdict is verdict


@pytest.mark.parametrize(
    "names",
    [
        ["C", "C#", "C++"],
        ["-1", "1"],
        ["का", "कि", "की", "कु"],
        ["👍", "👎", "✋"],
        ["a/b", "ab"],
        ["Wave", "wave"],
        ["turn <", "turn >"],
    ],
)
def test_names_that_a_careless_comparison_makes_equal(names: list[str]) -> None:
    assert compare_classes(names, names).verdict is Agreement.SAME
    assert compare_classes(names, names[::-1]).verdict is Agreement.REORDERED


def test_one_list_that_must_not_be_folded_is_enough() -> None:
    """Only the checkpoint tells `C` from `c`; folded, both lists would begin alike."""
    result = compare_classes(["c", "d"], ["C", "c"])
    assert result.verdict is Agreement.REORDERED
    assert [difference.class_id for difference in result.differences] == [0, 1]


def test_composed_and_decomposed_names_are_one() -> None:
    assert compare_classes(["saut\u00e9", "x"], ["saute\u0301", "x"]).verdict is Agreement.SAME


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
