"""Which spellings are one name; every expectation is written out by hand."""

from __future__ import annotations

import pytest

from datasets_spec.names import are_ids, class_numbers, fold, folds_apart, normal, whole_number

COMPOSED, DECOMPOSED = "saut\u00e9", "saute\u0301"


def test_an_accent_is_one_name_however_it_is_encoded() -> None:
    assert COMPOSED != DECOMPOSED
    assert normal(f" {DECOMPOSED}\n") == COMPOSED


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Arm_Wrestling", "arm wrestling"),
        ("ApplyEyeMakeup", "apply eye makeup"),
        ("Closing [something]", "closing something"),
        ("massaging person's head", "massaging_persons_head"),
        ("shooting goal (soccer)", "shooting_goal_soccer"),
        ("playing+music", "playing music"),
        ("push-up", "pushup"),
        ("class 1", "Class1"),
        (DECOMPOSED.upper(), COMPOSED),
    ],
)
def test_case_and_separators_fold(one: str, other: str) -> None:
    assert fold(one) == fold(other)


@pytest.mark.parametrize(
    "names",
    [
        ["C", "C#", "C++", "c*"],
        ["-1", "1", "+1"],
        ["1.5", "15", "1 5 0", "150"],
        ["1, 2", "12"],
        ["turn <", "turn >", "turn"],
        ["का", "कि", "की", "कु", "क"],
        ["👍", "👎", "✋"],
        ["!", "?"],
    ],
)
def test_what_tells_names_apart_does_not_fold(names: list[str]) -> None:
    assert len({fold(name) for name in names}) == len(names)


@pytest.mark.parametrize(
    ("names", "apart"),
    [
        (["a/b", "ab"], False),
        (["Wave", "wave"], False),
        (["wave", "jump"], True),
        ([COMPOSED, DECOMPOSED], True),  # one name: nothing is lost
    ],
)
def test_a_list_that_folding_would_shorten(names: list[str], apart: bool) -> None:
    assert folds_apart(names) is apart


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("7", 7),
        (" 07 ", 7),
        ("7.0", 7),
        ("10.000", 10),
        ("9" * 18, 10**18 - 1),
        ("9" * 19, None),
        ("9" * 6000, None),
        ("7.5", None),
        ("-7", None),
        ("7.", None),
        ("1e3", None),
        ("٧", None),
        ("²", None),
        ("", None),
    ],
)
def test_whole_numbers(text: str, number: int | None) -> None:
    assert whole_number(text) == number


@pytest.mark.parametrize(
    ("names", "numbers", "ids"),
    [
        (["0", "1", "2"], [0, 1, 2], True),
        (["LABEL_0", "LABEL_1"], [0, 1], True),
        (["00", "01"], [0, 1], True),
        (["1", "2"], [1, 2], False),
        (["1", "0"], [1, 0], False),
        (["1", "01"], None, False),
        (["0", "one"], None, False),
    ],
)
def test_lists_of_numbers(names: list[str], numbers: list[int] | None, ids: bool) -> None:
    assert (class_numbers(names), are_ids(names)) == (numbers, ids)
