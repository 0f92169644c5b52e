"""Class lists in their several spellings."""

from __future__ import annotations

from pathlib import Path

import pytest

from datasets_spec import DatasetSpecError
from datasets_spec.class_names import read_class_file


def _file(tmp_path: Path, name: str, text: str) -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("labels.json", '{"wave": "1", "jump high": "0"}'),
        ("labels.json", '{"wave": 1, "jump high": 0}'),
        ("labels.json", '{"0": "jump high", "1": "wave"}'),
        ("labels.json", '["jump high", "wave"]'),
        ("classInd.txt", "2 wave\n1 jump high\n\n"),
        ("classes.txt", "jump high\r\nwave\r\n"),
    ],
)
def test_every_spelling_gives_the_same_order(tmp_path: Path, name: str, text: str) -> None:
    assert read_class_file(_file(tmp_path, name, text)) == ["jump high", "wave"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("labels.json", '{"a": "0", "b": "2"}', "run from 0 without a hole, but 1 is missing"),
        ("labels.json", '{"a": "0", "b": "0"}', "id 0 names both 'a' and 'b'"),
        ("labels.json", '{"a": "0", "a": "1"}', "the key 'a' appears twice"),
        ("labels.json", '{"a": "x"}', "id 'x' of class 'a' is no whole number"),
        ("labels.json", '{"a": true}', "id True of class 'a' is no whole number"),
        ("labels.json", '{"a": -1}', "id -1 of class 'a' is no whole number"),
        ("labels.json", '["a", 3]', "class name 3 is no text"),
        ("labels.json", '["a", "a"]', "class 'a' is listed twice"),
        ("labels.json", "7", "expected names with their ids, got 7"),
        ("labels.json", "{}", "lists no classes"),
        ("classInd.txt", "1 a\n84 b\n", "run from 1 without a hole, but 2 is missing .*id 84"),
        ("classes.txt", "", "lists no classes"),
    ],
)
def test_a_broken_list_is_refused(tmp_path: Path, name: str, text: str, message: str) -> None:
    path = _file(tmp_path, name, text)
    with pytest.raises(DatasetSpecError, match=message) as caught:
        read_class_file(path)
    assert str(path) in str(caught.value)
