"""Annotations that break a parser are refused in a sentence with the file, whatever the format."""

from __future__ import annotations

import time
from typing import Any

import pytest

from datasets_spec import DatasetSpecError, load_spec, read_videos
from datasets_spec.agreement import read_checkpoint_classes
from datasets_spec.check import check_dataset
from datasets_spec.textio import entry_lines

DEEP = '{"a":' * 100_000
DIGITS = "9" * 6000
KINETICS = "label,youtube_id,time_start,time_end,split\n"


@pytest.mark.parametrize(
    ("name", "split", "files", "message"),
    [
        (
            "ssv2",
            "train",
            {"labels.json": DEEP, "train.json": []},
            r"labels\.json: not valid JSON: .*nested too deep",
        ),
        ("ssv2", "train", {"labels.json": ["a"], "train.json": DEEP}, r"train\.json: .*too deeply"),
        (
            "ssv2",
            "train",
            {"labels.json": ["a"], "train.json": f'[{{"id": {DIGITS}}}]'},
            r"train\.json: not valid JSON: a number has too many digits",
        ),
        (
            "ssv2",
            "train",
            {"labels.json": ["a"], "train.json": [{"id": "1", "template": [1] * 999}]},
            r"train\.json:2: template \[1, 1, .{,90} of video '1' is no text",
        ),
        (
            "ssv2",
            "train",
            {"labels.json": ["a"], "train.json": '[{"id": "\\ud83d", "template": "a"}]'},
            r"train\.json: entry 1: no text that UTF-8 can hold",
        ),
        ("csv", "all", {"videos.jsonl": DEEP}, r"jsonl:1: not a valid JSON object: .*too deeply"),
        (
            "csv",
            "all",
            {"videos.jsonl": f'{{"path": "a", "label": {DIGITS}}}'},
            r"jsonl:1: not a valid JSON object: a number has too many digits",
        ),
        ("csv", "all", {"videos.jsonl": '{"path": "a", "label": NaN}'}, "label nan is neither"),
        (
            "csv",
            "all",
            {"videos.jsonl": '{"path": "a", "label": 1e30}'},
            r"label 1e\+30 is neither",
        ),
        (
            "csv",
            "all",
            {"videos.jsonl": '{"path": "a\\u0000", "label": 1}'},
            r"jsonl:1: path 'a\\x00' cannot be a file name",
        ),
        (
            "csv",
            "all",
            {"videos.jsonl": '{"path": "a\\udce9", "label": 1}'},
            r"jsonl:1: no text that UTF-8 can hold: 'a\\\\xe9",
        ),
        (
            "csv",
            "all",
            {"videos.csv": f"path,label\na.mp4,a\nb.mp4,{DIGITS}\n"},
            r"csv:3: a text of 6000 characters: '9{50,}",
        ),
        ("csv", "all", {"videos.csv": f"path,label\n{'x' * 200_000},1\n"}, r"csv:2: not valid CSV"),
        (
            "kinetics400",
            "val",
            {"val.csv": f"{KINETICS}zumba,b,{DIGITS},11,val\n"},
            r"val\.csv:2: time_start '9{50,79}.{,5} is no whole number",
        ),
        (
            "kinetics400",
            "val",
            {"val.csv": f"{KINETICS}zumba,b,٣,11,val\n"},
            "time_start '٣' is no",
        ),
        (
            "ucf101",
            "train",
            {"trainlist01.txt": f"YoYo/v.avi {DIGITS}\n"},
            r"txt:1: expected Class/v",
        ),
        (
            "ssv2",
            "train",
            {"labels.json": {"a": int("9" * 4000)}, "train.json": []},
            "is no whole number",
        ),
    ],
)
def test_text_that_breaks_a_parser(
    write: Any, name: str, split: str, files: dict[str, Any], message: str
) -> None:
    root, spec = write(files), load_spec(name)
    with pytest.raises(DatasetSpecError, match=message) as caught:
        read_videos(spec, root, split)
    assert len(str(caught.value)) < 500 + len(str(root))


@pytest.mark.parametrize("text", [DEEP, f'{{"num_labels": {DIGITS}}}'])
def test_a_checkpoints_configuration_that_breaks_a_parser(tmp_path: Any, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(DatasetSpecError, match=r"config\.json: not valid JSON"):
        read_checkpoint_classes(tmp_path)


def test_times_that_pandas_wrote_as_floats(write: Any) -> None:
    root = write({"val.csv": f"{KINETICS}zumba,b,1.0,11.0,val\n"})
    assert read_videos(load_spec("kinetics400"), root, "val")[0].video_id == "b_000001_000011"


def test_lines_of_entries() -> None:
    text = '\n[\n {"id": 1},\n\n {"id":\n 2}, 3,\n"]"\n]'
    assert entry_lines(text) == [3, 5, 6, 7]
    assert entry_lines("[]") == []


def test_many_faults_are_found_in_one_pass(write: Any, ssv2_files: dict[str, Any]) -> None:
    """Looking each line up from the top of the file takes minutes for so many."""
    ssv2_files["labels/train.json"] = [{"id": None}] * 20_000
    began = time.monotonic()
    result = check_dataset(load_spec("ssv2"), write(ssv2_files), ["train"])
    assert time.monotonic() - began < 10
    problems = result.splits[0].problems
    assert len(problems) == 20_000
    assert "train.json:59999: id None" in problems[-1].message  # three lines an entry
