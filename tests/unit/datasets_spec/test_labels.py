"""Which class a label is: the table of `docs/datasets.md`, row by row, with the right answers.

Each case is a class list (None: gathered from the labels), the labels as a table holds them, and
the class names the videos must get; or the words of the refusal.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from datasets_spec import DatasetSpecError, load_spec, read_label_names, read_videos
from datasets_spec.class_names import in_order, read_class_file

COMPOSED, DECOMPOSED = "saut\u00e9", "saute\u0301"


def dataset(folder: Path, names: list[str] | None, labels: list[object], *, jsonl: bool) -> Any:
    """A table of videos 0, 1, ... with these labels, and its specification."""
    data = folder / "data"
    data.mkdir()
    if jsonl:
        rows = [json.dumps({"path": f"{i}.mp4", "label": label}) for i, label in enumerate(labels)]
        (data / "videos.jsonl").write_text("\n".join(rows) + "\n")
    else:
        rows = [f"{i}.mp4,{label}" for i, label in enumerate(labels)]
        (data / "videos.csv").write_text("\n".join(["path,label", *rows]) + "\n", encoding="utf-8")
    if names is None:
        return load_spec("csv"), data
    text = json.dumps({"name": "mine", "format": "csv", "labels": {"names": names}})
    (folder / "mine.yaml").write_text(text, encoding="utf-8")
    return load_spec(folder / "mine.yaml"), data


def classes(spec: Any, data: Path) -> list[str | None]:
    """The class name of each video, in order."""
    names = read_label_names(spec, data)
    videos = sorted(read_videos(spec, data, "all"), key=lambda video: int(video.video_id))
    return [None if video.label is None else names[video.label] for video in videos]


@pytest.mark.parametrize("jsonl", [False, True])
@pytest.mark.parametrize(
    ("names", "labels", "expected"),
    [
        pytest.param(["wave", "jump"], ["jump", "wave"], ["jump", "wave"], id="names"),
        pytest.param(["wave", "jump"], [1, 0], ["jump", "wave"], id="ids"),
        pytest.param(["wave", "jump"], ["1", "wave"], ["jump", "wave"], id="ids-beside-names"),
        pytest.param(["wave", "jump"], ["1.0", "0.0"], ["jump", "wave"], id="float-ids"),
        pytest.param(["wave", "jump"], [1.0, 0.0], ["jump", "wave"], id="float-numbers"),
        pytest.param(["wave", "jump"], ["", "wave"], [None, "wave"], id="no-label"),
        pytest.param(["1", "2", "3"], ["1", "2"], ["1", "2"], id="a-name-beats-an-id"),
        pytest.param(["1", "2", "3"], [1, 2], ["1", "2"], id="a-name-beats-a-number"),
        pytest.param(["1", "2", "3"], ["1.0", "2.0"], ["1", "2"], id="a-name-written-as-a-float"),
        pytest.param(["01", "02", "03"], [1, 2], ["01", "02"], id="a-name-that-lost-its-zero"),
        pytest.param(["01", "1", "2"], ["01", "1"], ["01", "1"], id="two-names-of-one-number"),
        pytest.param(["0", "1", "2"], [2, 1], ["2", "1"], id="names-that-are-their-ids"),
        pytest.param([COMPOSED, "x"], [DECOMPOSED, COMPOSED], [COMPOSED] * 2, id="list-in-NFC"),
        pytest.param([DECOMPOSED, "x"], [DECOMPOSED, COMPOSED], [COMPOSED] * 2, id="list-in-NFD"),
        pytest.param(None, [DECOMPOSED, COMPOSED, "x"], [COMPOSED, COMPOSED, "x"], id="gathered"),
        pytest.param(["C", "C#", "C++"], ["C++", "C"], ["C++", "C"], id="names-of-signs"),
        pytest.param(None, ["C++", "C"], ["C++", "C"], id="gathered-names-of-signs"),
        pytest.param(None, [10, 9, "2.0"], ["10", "9", "2"], id="gathered-ids"),
    ],
)
def test_a_label_is_this_class(
    tmp_path: Path, names: list[str] | None, labels: list[object], expected: list[str], jsonl: bool
) -> None:
    assert classes(*dataset(tmp_path, names, labels, jsonl=jsonl)) == expected


@pytest.mark.parametrize(
    ("names", "labels", "message"),
    [
        pytest.param(["wave"], ["Wave"], "unknown label 'Wave'", id="case-counts"),
        pytest.param(["wave"], ["wavee"], r"'wavee' \(did you mean 'wave'", id="misspelt"),
        pytest.param(["wave", "jump"], [2], "unknown label 2; mine has class ids 0 to 1", id="id"),
        pytest.param(["wave", "jump"], ["-1"], "unknown label '-1'", id="negative"),
        pytest.param(["wave", "jump"], ["0.5"], r"unknown label '0\.5'", id="no-whole-number"),
        pytest.param(["wave", "jump"], ["9" * 6000], "a text of 6000 characters", id="6000-digits"),
        pytest.param(["01", "1", "2"], [3], "unknown label 3", id="beyond"),
        pytest.param(
            ["1", "01"], ["1.0"], r"label 1\.0 is the number of two", id="two-of-a-number"
        ),
        pytest.param(
            ["1", "2", "3"],
            ["1", "0"],
            r"csv:3: label 0 can only be a class id, but 1 \(.*csv:2\) is the name of class 0 and "
            r"the id of class 1: write the names in every row",
            id="name-and-id",
        ),
        pytest.param(None, ["wave", "3"], "labels mix ids and names: 3 .* and 'wave'", id="mix"),
        pytest.param(None, ["32768"], "class id 32768; ids must be below 32768", id="too-large"),
        pytest.param(
            ["a"] + [f"c{i}" for i in range(2**15)], ["a"], "32769 classes; a store", id="too-many"
        ),
        pytest.param([COMPOSED, DECOMPOSED], ["x"], "is listed twice", id="one-name-twice"),
    ],
)
def test_a_label_is_refused(
    tmp_path: Path, names: list[str] | None, labels: list[object], message: str
) -> None:
    with pytest.raises(DatasetSpecError, match=message):
        classes(*dataset(tmp_path, names, labels, jsonl=False))


def test_whether_numbers_are_names_is_asked_of_all_splits(tmp_path: Path) -> None:
    """The training table alone would read as names; the other one can only hold ids."""
    text = '{"name": "mine", "format": "csv", "labels": {"names": ["1", "2", "3"]}}'
    (tmp_path / "mine.yaml").write_text(text)
    spec = load_spec(tmp_path / "mine.yaml")
    (tmp_path / "train.csv").write_text("path,label\na.mp4,1\n")
    assert [video.label for video in read_videos(spec, tmp_path, "train")] == [0]
    (tmp_path / "test.csv").write_text("path,label\nb.mp4,0\n")
    with pytest.raises(DatasetSpecError, match=r"test\.csv:2: label 0 can only be a class id"):
        read_videos(spec, tmp_path, "train")


@pytest.mark.parametrize(
    ("names", "ordered"),
    [
        ([str(n) for n in (0, 1, 10, 11, 2, 9)], ["0", "1", "2", "9", "10", "11"]),
        (["10", "09", "1"], ["1", "09", "10"]),
        (["b", "10", "a", "9"], ["10", "9", "a", "b"]),  # not all numbers: as text
        (["1", "01", "0"], ["0", "01", "1"]),  # two names of one number: as text
    ],
)
def test_gathered_names_of_numbers_are_in_the_order_of_the_numbers(
    names: list[str], ordered: list[str]
) -> None:
    assert in_order(names) == ordered


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ('{"1": "0", "2": "1", "3": "2"}', ["1", "2", "3"]),  # names to ids
        ('{"1": 0, "2": 1}', ["1", "2"]),
        ('{"0": "5", "1": "6"}', ["5", "6"]),  # ids to names: 5 and 6 are no ids of two classes
        ('{"0": "1", "1": "0"}', ["1", "0"]),  # both readings say the same
        ('{"a": 1.0, "b": 0.0}', ["b", "a"]),
        (f'["{DECOMPOSED}"]', [COMPOSED]),
        ('["1", "2"]', ["1", "2"]),
    ],
)
def test_a_class_file_of_numbers(tmp_path: Path, text: str, names: list[str]) -> None:
    (tmp_path / "labels.json").write_text(text, encoding="utf-8")
    assert read_class_file(tmp_path / "labels.json") == names


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"0": "1", "1": "2", "2": "0"}', "keys and values are all numbers, so nothing tells"),
        ('{"a": 1.5}', "id 1.5 of class 'a' is no whole number"),
        (f'{{"a": {"9" * 4000}}}', "id 9{40} of class 'a' is no whole number"),
        (f'{{"a": {"9" * 6000}}}', "not valid JSON: a number has too many digits"),
        ("[" * 100_000, "not valid JSON: lists or objects are nested too deeply"),
        ('["\\ud83d"]', r"class '\\\\ud83d' is no text that UTF-8 can hold"),
        ('[" "]', "class name ' ' is no text"),
    ],
)
def test_a_class_file_that_no_reading_fits(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "labels.json").write_text(text, encoding="utf-8")
    with pytest.raises(DatasetSpecError, match=message):
        read_class_file(tmp_path / "labels.json")
